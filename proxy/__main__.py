"""`python -m proxy --config FILE`: the supervisor. Exit codes: 0 ended in order; 1 ended in
haste, or workers that do not start; 2 not started (configuration, address in use)."""

import argparse
import asyncio
import json
import logging
import resource
import sys
import time

import proxy


class _JsonLines(logging.Formatter):
    """One JSON object a line, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        said = {
            "timestamp": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said)


def _set_up_log() -> None:
    handler = logging.StreamHandler(sys.stderr)
    human = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    handler.setFormatter(human if sys.stderr.isatty() else _JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _raise_file_limit() -> None:
    """Each connection takes a descriptor; the workers inherit what we are allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _supervise(path: str, check: bool) -> int:
    from proxy.ipc.config import BadConfig, load
    from proxy.supervisor import upgrade
    from proxy.supervisor.supervisor import StartError, Supervisor

    try:
        config = load(path)
        if check:
            return 0
        return asyncio.run(Supervisor(config, path, upgrade.take()).run())
    except (BadConfig, StartError) as error:
        print(f"meshd: {error}", file=sys.stderr)
        return 2


def main() -> int:
    """Read the configuration and supervise."""
    parser = argparse.ArgumentParser(prog="python -m proxy", description=__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="JSON, SupervisorConfig")
    parser.add_argument("--check", action="store_true", help="read the configuration, no more")
    options = parser.parse_args()
    # Files of another distribution can lie in the same directory and take over parts of ours.
    if not getattr(proxy, "MESHD", False):
        print(
            f"meshd: {proxy.__file__} is another package named 'proxy'; uninstall that one "
            "(often `pip uninstall proxy.py`) and install meshd again",
            file=sys.stderr,
        )
        return 2
    _set_up_log()
    _raise_file_limit()
    return _supervise(options.config, options.check)


if __name__ == "__main__":
    sys.exit(main())
