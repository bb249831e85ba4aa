"""Entry point of a node's agent, `python -m meshd.node_proxy --state DIR ADDRESS...`.

Started by the supervisor of the node's proxy; implemented in `meshd.node_proxy.agent`.
"""

import argparse
import asyncio
import contextlib
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from meshd.logging_setup import set_up_logging
from meshd.node_proxy.agent import Agent
from meshd.node_proxy.enrollment import JoinFailed, load_identity
from proxy.ipc.signals import hold_late_signals, release_signals
from proxy.ipc.watchdog import send_signs_of_life, take_watchdog


async def _run(state: Path, managers: Sequence[str]) -> None:
    identity = load_identity(state)
    if identity is None:
        raise JoinFailed(f"no identity in {state}; join with `meshd node join`")
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    release_signals()
    tasks = [
        asyncio.create_task(Agent(state, identity, managers, random.Random()).run()),
        asyncio.create_task(send_signs_of_life(take_watchdog())),
    ]
    waiting = asyncio.create_task(ended.wait())
    try:
        done, _ = await asyncio.wait([*tasks, waiting], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (*tasks, waiting):
            task.cancel()
        await asyncio.gather(*tasks, waiting, return_exceptions=True)


def main() -> int:
    """Run the agent until the supervisor ends it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m meshd.node_proxy")
    parser.add_argument("--state", required=True, type=Path, metavar="DIR")
    parser.add_argument("managers", nargs="+", metavar="ADDRESS")
    options = parser.parse_args()
    set_up_logging()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(hold_late_signals(_run(options.state, options.managers)))
    except JoinFailed as error:
        print(f"meshd: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
