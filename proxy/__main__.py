"""`python -m proxy --config FILE`: run the supervisor.

`meshd up` and `meshd proxy` start it. It reads the configuration and sets up logging, then
`proxy.supervisor` takes over.

Exit codes: 0 graceful shutdown; 1 fast shutdown, or the workers do not start; 2 not started
(bad configuration, address in use).
"""

import argparse
import asyncio
import json
import logging
import resource
import sys
import time
from typing import TYPE_CHECKING

import proxy

if TYPE_CHECKING:
    from proxy.ipc.config import SupervisorConfig


class _JsonLines(logging.Formatter):
    """Formats a record as one JSON object per line, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "timestamp": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _set_up_log() -> None:
    handler = logging.StreamHandler(sys.stderr)
    human = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    handler.setFormatter(human if sys.stderr.isatty() else _JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _raise_file_limit() -> None:
    """Raise the limit of open files to the hard limit: every connection needs a descriptor.

    The workers inherit the limit.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _run_supervisor(path: str, check: bool) -> int:
    from proxy.ipc.config import BadConfig, load
    from proxy.ipc.signals import hold_late_signals, hold_signals
    from proxy.supervisor import upgrade
    from proxy.supervisor.supervisor import StartError, Supervisor

    try:
        config = load(path)
        if check:
            return _check_certificates(config)
        hold_signals()  # until the supervisor has its handlers
        supervisor = Supervisor(config, path, upgrade.load_state())
        return asyncio.run(hold_late_signals(supervisor.run()))
    except (BadConfig, StartError) as error:
        print(f"meshd: {error}", file=sys.stderr)
        return 2


def _check_certificates(config: "SupervisorConfig") -> int:
    """Check the certificate files of the configuration; return the exit code."""
    from proxy.supervisor.listeners import Listeners
    from proxy.wire.snapshot import Generation, Snapshot

    listeners = Listeners(config.listen, config.listeners, config.workers)
    errors = listeners.check_certificates(Snapshot(Generation()))
    for address, error in errors.items():
        print(f"meshd: cannot listen on {address}: {error}", file=sys.stderr)
    return 2 if errors else 0


def main() -> int:
    """Read the configuration and run the supervisor."""
    parser = argparse.ArgumentParser(prog="python -m proxy", description=__doc__)
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="configuration (JSON, see SupervisorConfig)"
    )
    parser.add_argument("--check", action="store_true", help="read the configuration and exit")
    options = parser.parse_args()
    # Another distribution can install a package of the same name over this one.
    if not getattr(proxy, "MESHD", False):
        print(
            f"meshd: {proxy.__file__} is another package named 'proxy'; uninstall it "
            "(usually `pip uninstall proxy.py`) and reinstall meshd",
            file=sys.stderr,
        )
        return 2
    _set_up_log()
    _raise_file_limit()
    return _run_supervisor(options.config, options.check)


if __name__ == "__main__":
    sys.exit(main())
