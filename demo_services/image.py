"""Prepare and build the image of the demo, with or without an image registry.

`scenario` prepares it, and the mesh builds it. `python -m demo_services.image` builds it by hand.
The wheels are downloaded on this machine, for the Python version in the base image, and copied
into the image: the package index that this machine uses may not be reachable from a build.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
IMAGE = os.environ.get("DEMO_IMAGE", "meshd-demo:latest")
LOCK = HERE / "requirements.lock"
BASES = ("meshd-base:bookworm", "python:3.12-slim")
"""Base images, in order of preference; `make engine` builds the first one."""


class ImageUnavailable(Exception):
    """The image cannot be built here; the text says why."""


def run(*command: str, timeout: float = 300) -> str:
    """Run a command and return its output. Raises ImageUnavailable with the last line of it."""
    name = " ".join(command[:3])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise ImageUnavailable(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ImageUnavailable(f"`{name}` took longer than {timeout:.0f} s") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise ImageUnavailable(f"`{name}` failed: {lines[-1] if lines else 'no output'}")
    return done.stdout.strip()


def find_base() -> str:
    """Return $DEMO_BASE, or the first known base image that exists here; if none does, pull the
    last one. Raises ImageUnavailable."""
    requested = os.environ.get("DEMO_BASE")
    for candidate in (requested,) if requested else BASES:
        try:
            run("docker", "image", "inspect", candidate, timeout=20)
        except ImageUnavailable:
            continue
        return candidate
    last = requested or BASES[-1]
    run("docker", "pull", last, timeout=180)
    return last


def prepare() -> str:
    """Download what a build of the image needs, and return the base image for it.

    Raises ImageUnavailable.
    """
    run("docker", "version", timeout=20)
    base = find_base()
    version = run(
        "docker", "run", "--rm", base,
        "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])",
    )  # fmt: skip
    wheelhouse = HERE / "wheelhouse"
    stamp = wheelhouse / f"python-{version}"
    if stamp.exists() and stamp.stat().st_mtime > LOCK.stat().st_mtime:
        return base
    shutil.rmtree(wheelhouse, ignore_errors=True)
    run(
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--only-binary=:all:", "--python-version", version, "--require-hashes",
        "-r", str(LOCK), "--dest", str(wheelhouse),
    )  # fmt: skip
    stamp.touch()
    return base


if __name__ == "__main__":
    try:
        chosen = prepare()
        run("docker", "build", "--tag", IMAGE, "--build-arg", f"BASE={chosen}", str(HERE))
    except ImageUnavailable as error:
        sys.exit(f"cannot build the image of the demo: {error}")
    print(f"built {IMAGE} on {chosen}")
