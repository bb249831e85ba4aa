"""`meshd` and `python -m meshd`.

While the modules load, Ctrl-C ends the process without a traceback; from then on it is an
exception (`meshd.cli.main`).
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as by nohup
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from meshd.cli.main import main as command


def main() -> None:
    """Run the command line."""
    command(prog_name="meshd")


if __name__ == "__main__":
    main()
