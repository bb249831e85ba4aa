"""The control process: `python -m meshd.daemon.main --state DIR --runtime docker|process|swarm`.

Started by the supervisor (through `meshd.daemon`). Reads the arguments and runs the `Daemon` of
`meshd.daemon.wiring`. Exit codes: 0 ended in order, 1 failed, 2 cannot start (another daemon holds
the state, or an address is in use).
"""

import argparse
import asyncio
import gc
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from meshd.api.tcp_address import ServeError, TcpSettings
from meshd.certificates.wanted import BadAcmeSettings
from meshd.daemon.leadership import LeaseLost
from meshd.daemon.wiring import Daemon, DaemonSettings
from meshd.logging_setup import set_up_logging
from meshd.model.errors import BadAuthority
from meshd.publish.compile import EdgeSettings
from meshd.spec.model.acme import ACME_VARIABLE, AcmeSettings
from meshd.store.lock import StateLocked
from meshd.store.schema import SchemaTooNew
from meshd.ui.settings import PageSettings
from proxy.ipc.signals import hold_late_signals, release_signals
from proxy.ipc.watchdog import take_last_end, take_watchdog

GC_THRESHOLDS: Final = (50_000, 20, 100)
"""Thresholds of the garbage collector. Reports of many nodes and a large mesh are thousands of
values without cycles, and looking at all of them took two thirds of the time of a report."""


async def _main(options: argparse.Namespace) -> None:
    daemon = Daemon(
        DaemonSettings(
            state=options.state,
            runtime=options.runtime,
            metrics=options.metrics,
            starts=options.starts,
            adopts=not options.no_adopt,
            edge=EdgeSettings(tuple(options.trusted_proxy), options.via),
            filters=not options.no_filter,
            watchdog=take_watchdog(),
            last_end=take_last_end(),
            api=read_api(options),
            ui=read_ui(options),
            lease=options.lease,
            node_listen=options.node_listen,
            authority_file=options.authority_file,
            allow_clear_text=options.allow_clear_text,
            staying=tuple(options.stays) if options.take_over_engine else None,
            acme=read_acme(os.environ.get(ACME_VARIABLE, "")),
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, daemon.end)
    release_signals()
    await daemon.run()


def read_api(options: argparse.Namespace) -> TcpSettings | None:
    """Return the settings of the API's TCP address; None if it has none."""
    if not options.api:
        return None
    return TcpSettings(
        options.api,
        options.api_cert,
        options.api_key,
        options.api_client_ca,
        tuple(options.api_host),
    )


def read_ui(options: argparse.Namespace) -> PageSettings | None:
    """Return where the web page is served; None if it is off."""
    if not options.ui:
        return None
    tcp = TcpSettings(
        options.ui, options.ui_cert, options.ui_key, names=tuple(options.ui_host), option="--ui"
    )
    return PageSettings(tcp, options.ui_strict)


def read_acme(text: str) -> tuple[AcmeSettings, ...]:
    """Return the settings of automatic certificates from the JSON text of `ACME_VARIABLE`."""
    return TypeAdapter(tuple[AcmeSettings, ...]).validate_json(text) if text else ()


def main() -> int:
    """Read the arguments, run the daemon, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m meshd.daemon.main", description=__doc__)
    parser.add_argument("--state", required=True, type=Path, metavar="DIR")
    parser.add_argument("--runtime", required=True, choices=("docker", "process", "swarm"))
    parser.add_argument("--metrics", default="127.0.0.1:9900", metavar="ADDRESS")
    parser.add_argument("--starts", type=int, default=0, metavar="N")
    parser.add_argument("--no-adopt", action="store_true")
    parser.add_argument("--no-filter", action="store_true")
    parser.add_argument("--trusted-proxy", action="append", default=[], metavar="CIDR")
    parser.add_argument("--via", action="store_true")
    parser.add_argument("--api", default="", metavar="ADDRESS")
    parser.add_argument("--api-cert", default="", metavar="FILE")
    parser.add_argument("--api-key", default="", metavar="FILE")
    parser.add_argument("--api-client-ca", default="", metavar="FILE")
    parser.add_argument("--api-host", action="append", default=[], metavar="NAME")
    parser.add_argument("--ui", default="", metavar="ADDRESS")
    parser.add_argument("--ui-cert", default="", metavar="FILE")
    parser.add_argument("--ui-key", default="", metavar="FILE")
    parser.add_argument("--ui-host", action="append", default=[], metavar="NAME")
    parser.add_argument("--ui-strict", action="store_true")
    parser.add_argument("--lease", default="", metavar="NAME")
    parser.add_argument("--node-listen", default="", metavar="ADDRESS")
    parser.add_argument("--authority-file", default="", metavar="FILE")
    parser.add_argument("--allow-clear-text", action="store_true")
    parser.add_argument("--take-over-engine", action="store_true")
    parser.add_argument("--stays", action="append", default=[], metavar="PROJECT/SERVICE")
    options = parser.parse_args()
    set_up_logging()
    gc.set_threshold(*GC_THRESHOLDS)
    options.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        asyncio.run(hold_late_signals(_main(options)))
    except (
        StateLocked,
        SchemaTooNew,
        ServeError,
        BadAcmeSettings,
        BadAuthority,
        sqlite3.DatabaseError,
    ) as error:
        print(f"meshd: {error}", file=sys.stderr)
        return 2
    except LeaseLost as error:
        print(f"meshd: {error}; this process starts again and stands by", file=sys.stderr)
        return 1
    return 0
