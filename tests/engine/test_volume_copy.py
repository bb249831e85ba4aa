"""`meshd volume copy` between two volumes of a real engine; between engines: `test_bootstrap`."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.replicas import docker, unique_project
from tests.support.commands import run_meshd
from tests.support.waiting import wait_until

pytestmark = pytest.mark.engine
HOST = "unix:///var/run/docker.sock"
FILL = """
mkdir -p /d/sub/deep; echo hi > /d/sub/f; ln -s f /d/sub/l; ln /d/sub/f /d/sub/h
mkfifo /d/p; truncate -s 3M /d/sparse; printf x > "/d/a file"; touch -d @1000000000 /d/old
chown 70:71 /d/sub; chmod 700 /d/sub; chmod 4755 /d/old; chown 999:998 /d; chmod 750 /d
"""
LIST = "cd /d; find . -printf '%P %y %m %U:%G %s %n %l %TY\\n' | sort; cat sub/f"


@pytest.fixture
def project() -> Iterator[str]:
    name = unique_project("copy")
    yield name
    for container in docker("ps", "-aq", "--filter", f"label=copy={name}").split():
        docker("rm", "-f", container)
    for volume in docker("volume", "ls", "-q").split():
        if name in volume:
            docker("volume", "rm", volume)


def shell(volume: str, script: str, image: str) -> str:
    mount = f"{volume}:/d"
    return docker("run", "--rm", "--network", "none", "-v", mount, image, "sh", "-ec", script)


def use(volume: str, project: str, image: str) -> str:
    words = ("--network", "none", "--label", f"copy={project}", "-v", f"{volume}:/d")
    return docker("run", "-d", *words, image, "sleep", "60")


async def copy(state: Path, *words: str) -> tuple[int, str, str]:
    return await run_meshd("volume", "copy", *words, "--state", str(state))


async def test_a_copy_is_equal(project: str, engine_image: str, tmp_path: Path) -> None:
    """Also: labels, what is refused, and that a repeated copy replaces only with --force."""
    one, other = f"{project}_one", f"{project}_other"
    docker("volume", "create", "--label", "mine=1", one)
    shell(one, FILL, engine_image)
    same = await copy(tmp_path, one, HOST)
    assert same[0] == 1
    assert "are the same engine; --as copies the volume there under another name" in same[2]
    none = await copy(tmp_path, f"{project}_none", HOST, "--as", other)
    assert none[0] == 1
    assert f"has no volume {project}_none; known: " in none[2]

    done = await copy(tmp_path, one, HOST, "--as", other)
    assert done[::2] == (0, ""), done
    assert f"{other}: 9 entries, 3.0 MiB copied to {HOST} and compared (digest " in done[1]
    assert shell(other, LIST, engine_image) == shell(one, LIST, engine_image)
    assert docker("volume", "inspect", "-f", "{{.Labels.mine}}", other) == "1"

    again = await copy(tmp_path, one, HOST, "--as", other)
    assert again[0] == 1
    assert f"volume {other} on {HOST} is not empty; --force replaces its content" in again[2]
    shell(other, "echo more > /d/more", engine_image)
    forced = await copy(tmp_path, one, HOST, "--as", other, "--force")
    assert forced == done
    assert shell(other, LIST, engine_image) == shell(one, LIST, engine_image)

    user = use(one, project, engine_image)
    busy = await copy(tmp_path, one, HOST, "--as", other, "--force")
    assert busy[0] == 1
    assert f"volume {one} on this engine is in use by " in busy[2]
    live = await copy(tmp_path, one, HOST, "--as", f"{project}_live", "--live")
    assert live[0] == 0, live
    docker("rm", "-f", user)
    use(other, project, engine_image)
    taken = await copy(tmp_path, one, HOST, "--as", other, "--force")
    assert taken[0] == 1
    assert f"volume {other} on {HOST} is in use by " in taken[2]
    left = docker("volume", "ls", "-q").split()
    assert [name for name in left if project in name and name.startswith("meshd.")] == []


async def test_an_interrupted_copy_leaves_no_half(
    project: str, engine_image: str, tmp_path: Path
) -> None:
    """After Ctrl-C the target does not exist; after a kill it is incomplete, and the next copy
    replaces it."""
    one, other = f"{project}_one", f"{project}_other"
    shell(one, "head -c 200000000 /dev/urandom > /d/large", engine_image)
    marker = f"meshd.copy.{other}"
    for number in (signal.SIGINT, signal.SIGKILL):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "meshd", "volume", "copy", one, HOST, "--as", other,
            "--state", str(tmp_path), env=dict(os.environ),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        await wait_until(lambda: marker in docker("volume", "ls", "-q"), 20)
        process.send_signal(number)
        await process.communicate()
        names = docker("volume", "ls", "-q").split()
        killed = number == signal.SIGKILL
        assert (marker in names) == killed
        assert other not in names or killed
    done = await copy(tmp_path, one, HOST, "--as", other)
    assert done[0] == 0, done
    assert marker not in docker("volume", "ls", "-q")
