"""Run a command with a Podman service in place of the Docker Engine: `make podman`.

`python -m tests.support.podman COMMAND...`, as root. The service has separate folders and a copy of
the base image of engine tests. docs/compose.md lists how Podman differs.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ENGINE_IMAGE
from tests.support.waiting import wait_until_blocking

START_SECONDS = 30.0
"""Seconds until the service answers; its first start creates its storage."""

ENOUGH = 20_000
"""Files and processes of a container of these tests; Podman's own default may exceed what this
process may set."""


def settings() -> str:
    """Return Podman's settings for this machine: limits that it may set, and no systemd where none
    runs."""
    limits = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    hard = {name: resource.getrlimit(number)[1] for name, number in limits.items()}
    usable = {name: ENOUGH if each < 0 else min(each, ENOUGH) for name, each in hard.items()}
    given = [f'"{name}={each}:{each}"' for name, each in usable.items()]
    lines = ["[containers]", f"default_ulimits = [{', '.join(given)}]"]
    if not Path("/run/systemd/system").exists():
        lines += ["[engine]", 'cgroup_manager = "cgroupfs"', 'events_logger = "file"']
        if shutil.which("runc"):  # crun refuses some hosts with cgroups of version 1
            lines.append('runtime = "runc"')
    return "\n".join(lines) + "\n"


@contextmanager
def podman_service(root: Path) -> Iterator[Mapping[str, str]]:
    """Run a service with everything below `root`; yield the environment for its clients."""
    config = root / "containers.conf"
    config.write_text(settings())
    own = {**os.environ, "CONTAINERS_CONF": str(config)}
    podman = ["podman", "--root", f"{root}/data", "--runroot", f"{root}/run"]
    address = f"unix://{root}/podman.sock"
    service = subprocess.Popen([*podman, "system", "service", "-t", "0", address], env=own)
    client = {**own, "DOCKER_HOST": address}

    def answers() -> bool:
        assert service.poll() is None, "the Podman service has ended"
        asked = subprocess.run(["docker", "info"], env=client, capture_output=True, check=False)
        return asked.returncode == 0

    try:
        wait_until_blocking(answers, START_SECONDS, "the Podman service answers", interval=0.2)
        with subprocess.Popen(["docker", "save", ENGINE_IMAGE], stdout=subprocess.PIPE) as save:
            subprocess.run([*podman, "load", "-q"], stdin=save.stdout, env=own, check=True)
        names = [f"localhost/{ENGINE_IMAGE}", f"docker.io/library/{ENGINE_IMAGE}"]
        subprocess.run([*podman, "tag", *names], env=own, check=True)
        yield client
    finally:
        subprocess.run([*podman, "rm", "-fa", "-t", "0"], env=own, check=False, capture_output=True)
        service.terminate()
        service.wait(START_SECONDS)
        subprocess.run(["umount", f"{root}/data/overlay"], check=False, capture_output=True)


def main() -> int:
    """Run the command of the arguments; return its exit code."""
    if shutil.which("podman") is None:
        print("no podman is installed, so nothing runs on it", file=sys.stderr)
        return 0
    # Not tempfile.TemporaryDirectory: it stumbles over files that Podman deletes meanwhile.
    root = Path(tempfile.mkdtemp(prefix="pm-"))
    try:
        with podman_service(root) as environment:
            return subprocess.run(sys.argv[1:], env=environment, check=False).returncode
    finally:
        subprocess.run(["rm", "-rf", root], check=True)


if __name__ == "__main__":
    sys.exit(main())
