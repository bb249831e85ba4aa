"""From a replica to the process that the keeper starts for it, and what cannot run as a process.
Pure. Used by `runtime`."""

import os
import signal
import sys
from collections.abc import Mapping

from meshd.model.runtime import Capabilities, ReplicaSpec
from meshd.runtime.base import Unsupported
from meshd.runtime.process import keeper_protocol as wire
from meshd.runtime.support import unsupported
from meshd.spec.labels import JOB
from meshd.spec.model import Service
from meshd.spec.signals import parse_signal

CAPABILITIES = Capabilities(
    images=False,
    networks=False,
    cpu_limits=False,
    memory_limits=False,
    pause=True,
    container_health=False,
    volumes=False,
    tokens=True,
)
INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR",
    "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
"""All that a replica gets from the host's environment."""


def build_launch(replica: ReplicaSpec, host: Mapping[str, str]) -> wire.Launch:
    """Return the process to start for `replica`. `host` is the host's environment, of which only
    `PASSED` is handed on. Raises Unsupported."""
    service = replica.service
    check_supported(service)
    if replica.clone_of is not None:
        raise Unsupported(f"replica {replica.name}: local processes cannot be cloned")
    argv = (*(service.entrypoint or ()), *(service.command or ()))
    inherited = {key: host[key] for key in INHERITED if key in host}
    return wire.Launch(
        name=replica.name,
        project=replica.project,
        service=service.name,
        revision=replica.revision,
        argv=(_program(argv[0]), *argv[1:]),
        environment={
            **inherited,
            "PYTHONUNBUFFERED": "1",  # otherwise output is lost when a Python service is killed
            **service.environment,
            **replica.environment,
        },
        directory=os.path.join(replica.directory, service.working_dir),
        stop_signal=_signal_name(service),
        labels={**service.labels, **({JOB: replica.name} if replica.job else {})},
    )


def check_supported(service: Service) -> None:
    """Raise Unsupported if the service cannot run as a process."""
    refused = [str(lack) for lack in unsupported(service, CAPABILITIES) if lack.refuse]
    if refused:
        raise Unsupported("; ".join(refused))


def _program(program: str) -> str:
    """Return the program: `python` and `python3` mean the interpreter that runs meshd, so that a
    service finds the packages installed there."""
    return sys.executable if program in ("python", "python3") else program


def _signal_name(service: Service) -> str:
    """Return the stop signal as Python names it, or the number of a real-time signal, which has no
    name there. Default: SIGTERM."""
    number = parse_signal(service.stop_signal or "SIGTERM")
    if number is None or number not in signal.valid_signals():
        raise Unsupported(
            f"service {service.name}: stop_signal {service.stop_signal} is not a signal "
            "of this host"
        )
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
