"""A tunnel through `ssh`, of which a small program takes the place."""

import asyncio
import os
from pathlib import Path

import pytest

from meshd.runtime.base import RuntimeUnavailable
from meshd.runtime.swarm.setup.ssh_tunnel import SshTunnel, ssh_command

ECHO = "#!/bin/sh\nexec cat\n"
STUCK = '#!/bin/sh\necho $$ > "${0%/*}/pid"\nexec >&- 2>&-\nexec sleep 300\n'
"""Ends the connection, but does not end itself."""
REFUSED = "#!/bin/sh\necho 'ssh: no route to host' >&2\nexit 255\n"


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "ssh"
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


async def ask(path: Path, text: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(text)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_each_connection_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, ECHO)
    tunnel = SshTunnel("ssh://me@node")
    async with tunnel.open() as path:
        answers = await asyncio.gather(*(ask(path, str(n).encode() * 99999) for n in range(3)))
        assert path.parent.stat().st_mode & 0o777 == 0o700
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
    assert answers == [str(n).encode() * 99999 for n in range(3)]
    assert await reader.read() == b"", "an open connection ends with the tunnel"
    writer.close()
    await writer.wait_closed()
    assert not path.exists()


async def test_the_reason_of_a_failure_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, REFUSED)
    tunnel = SshTunnel("ssh://node:2222")
    async with tunnel.open() as path:
        assert await ask(path, b"") == b""
        assert tunnel.said == "ssh: no route to host"


async def test_no_program_outlives_the_tunnel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tunnel ends while it still waits for a program whose connection has ended."""
    install(tmp_path, monkeypatch, STUCK)
    async with SshTunnel("ssh://node").open() as path:
        assert await ask(path, b"") == b""
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_command() -> None:
    command = ssh_command("ssh://me@node:2222")
    assert command[-3:] == ["2222", "me@node", "docker system dial-stdio"]
    assert "BatchMode=yes" in command, "it never asks for a password"


@pytest.mark.parametrize(
    "address", ["ssh://", "ssh://-oProxyCommand=x", "ssh://-u@node", "ssh://node/path", "ssh://n:x"]
)
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(RuntimeUnavailable, match="expected ssh://"):
        ssh_command(address)
