"""What the demo's image is built from, with or without a registry. The mesh builds the image
by itself; `python -m demo_services.image` does so by hand.

The wheels are downloaded on this machine, for the Python inside the base image, and copied
in: package indexes that this machine is set up with may not exist inside a build.
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


class NoImage(Exception):
    """The image cannot be built here; the text says why."""


def run(*command: str, timeout: float = 300) -> str:
    """The output of a command. Raises NoImage with the end of what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise NoImage(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise NoImage(f"`{' '.join(command[:3])}` took over {timeout:.0f} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NoImage(f"`{' '.join(command[:3])}` failed: {said[-1] if said else 'no output'}")
    return done.stdout.strip()


def base() -> str:
    """$DEMO_BASE, else the first known base that is here, else the public one, pulled."""
    wanted = os.environ.get("DEMO_BASE")
    for candidate in (wanted,) if wanted else BASES:
        try:
            run("docker", "image", "inspect", candidate, timeout=20)
        except NoImage:
            continue
        return candidate
    last = wanted or BASES[-1]
    run("docker", "pull", last, timeout=180)
    return last


def prepare() -> str:
    """Make ready what a build of the image needs, and return the base image to build on.
    Raises NoImage."""
    run("docker", "version", timeout=20)
    image_base = base()
    version = run(
        "docker", "run", "--rm", image_base,
        "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])",
    )  # fmt: skip
    wheelhouse = HERE / "wheelhouse"
    have = wheelhouse / f"python-{version}"
    if have.exists() and have.stat().st_mtime > LOCK.stat().st_mtime:
        return image_base
    shutil.rmtree(wheelhouse, ignore_errors=True)
    run(
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--only-binary=:all:", "--python-version", version, "--require-hashes",
        "-r", str(LOCK), "--dest", str(wheelhouse),
    )  # fmt: skip
    have.touch()
    return image_base


if __name__ == "__main__":
    try:
        chosen = prepare()
        run("docker", "build", "--tag", IMAGE, "--build-arg", f"BASE={chosen}", str(HERE))
    except NoImage as error:
        sys.exit(f"the demo's image cannot be built: {error}")
    print(f"built {IMAGE} on {chosen}")
