"""Which Docker Engine is used: the variables and contexts of the `docker` command."""

import asyncio
import hashlib
import json
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from meshd.runtime import select
from meshd.runtime.base import RuntimeUnavailable
from meshd.runtime.docker import endpoint as endpoints
from meshd.runtime.docker.endpoint import BadEndpoint, describe_refusal, find_endpoint
from meshd.runtime.docker.engine import Engine

VERSION = b'{"ApiVersion": "1.41", "MinAPIVersion": "1.12"}'


def context(directory: Path, name: str, **fields: Any) -> Path:
    """Write a context as `docker context create` does; return its directory for TLS files."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = directory / "contexts" / "meta" / digest
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": fields}}))
    return directory / "contexts" / "tls" / digest / "docker"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    context(tmp_path, "blue", Host="tcp://10.0.0.1:2375")
    context(tmp_path, "green", Host="unix:///run/green.sock")
    (tmp_path / "config.json").write_text('{"currentContext": "green"}')
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, "unix:///run/green.sock"),
        ({"DOCKER_CONTEXT": "blue"}, "http://10.0.0.1:2375"),
        ({"DOCKER_CONTEXT": "blue", "DOCKER_HOST": "unix:///a.sock"}, "unix:///a.sock"),
        ({"DOCKER_HOST": "tcp://h:99"}, "http://h:99"),
        ({"DOCKER_HOST": "tcp://h"}, "http://h:2375"),
        ({"DOCKER_HOST": "tcp://[fd00::1]:99"}, "http://[fd00::1]:99"),
        ({"DOCKER_HOST": "tcp://h", "DOCKER_TLS_VERIFY": "yes"}, "https://h:2376"),
        ({"DOCKER_HOST": "https://h:99"}, "https://h:99"),
    ],
)
def test_the_order_is_that_of_the_docker_command(
    config: Path, environment: Mapping[str, str], found: str
) -> None:
    assert find_endpoint({"DOCKER_CONFIG": str(config), **environment}).url == found


def test_the_default_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "DEFAULT_SOCKETS", ("/none/docker.sock",))
    for environment in ({}, {"DOCKER_CONTEXT": "default"}):
        with pytest.raises(
            BadEndpoint, match=r"no socket at /none/docker.sock, and neither DOCKER"
        ):
            find_endpoint({"DOCKER_CONFIG": str(tmp_path), **environment})


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"DOCKER_CONTEXT": "none"}, "context 'none' from DOCKER_CONTEXT does not exist; see"),
        ({"DOCKER_HOST": "ssh://root@h"}, r"at ssh://root@h \(DOCKER_HOST\) is not usable: ssh://"),
        ({"DOCKER_HOST": "npipe:////./pipe/d"}, "is not usable: expected unix:///PATH or tcp://"),
        ({"DOCKER_HOST": "nonsense"}, "nonsense .* is not usable: expected unix"),
        ({"DOCKER_HOST": "tcp://h:port"}, "is not usable: expected unix"),
        ({"DOCKER_HOST": "tcp://:99"}, "is not usable: expected unix"),
        ({"DOCKER_HOST": "unix://"}, "is not usable: expected unix"),
    ],
)
async def test_what_meshd_cannot_use_is_refused_by_name(
    config: Path, environment: Mapping[str, str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadEndpoint, match=text):
        find_endpoint({"DOCKER_CONFIG": str(config), **environment})
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"DOCKER_CONFIG": str(config), **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadEndpoint, match=text):
        await select.choose("docker", [])
    choice = await select.choose("auto", [])
    assert choice.name == "process"


def test_a_broken_context_and_configuration_are_named(config: Path) -> None:
    environment = {"DOCKER_CONFIG": str(config)}
    for meta in (config / "contexts" / "meta").iterdir():
        (meta / "meta.json").write_text('{"Endpoints": {}}')
    with pytest.raises(BadEndpoint, match=r"context 'green' from .* cannot be read"):
        find_endpoint(environment)
    (config / "config.json").write_text("{")
    with pytest.raises(BadEndpoint, match=r"config\.json cannot be read"):
        find_endpoint(environment)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(VERSION)}"
    writer.write(head.encode() + b"\r\n\r\n" + VERSION)
    await writer.drain()
    writer.close()


def _openssl(*arguments: str, folder: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_certificates(folder: Path) -> None:
    """Make a CA, and certificates of an engine on 127.0.0.1 and of a client."""
    folder.mkdir(parents=True)
    request = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    _openssl(*request, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem", folder=folder)
    for name, subject in (("server", "/CN=engine"), ("client", "/CN=client")):
        _openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", subject,
                 "-addext", "subjectAltName=IP:127.0.0.1",
                 "-keyout", f"{name}.key", "-out", f"{name}.csr", folder=folder)  # fmt: skip
        _openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                 "-copy_extensions", "copy", "-days", "2", "-out", f"{name}.pem",
                 folder=folder)  # fmt: skip
    (folder / "client.pem").rename(folder / "cert.pem")
    (folder / "client.key").rename(folder / "key.pem")


async def test_tls_with_a_client_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = context(tmp_path, "remote", Host="tcp://127.0.0.1:1")
    make_certificates(files)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files / "ca.pem"))
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(files / "server.pem", files / "server.key")
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{port}")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(files))
    engine = Engine()
    await engine.open()
    await engine.close()
    # The same by a context; a wrong CA is an error that names the engine.
    for name in ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name)
    digest = hashlib.sha256(b"remote").hexdigest()
    meta = tmp_path / "contexts" / "meta" / digest / "meta.json"
    host = f"tcp://127.0.0.1:{port}"
    meta.write_text(json.dumps({"Endpoints": {"docker": {"Host": host}}}))
    monkeypatch.setenv("DOCKER_CONTEXT", "remote")
    await engine.open()
    await engine.close()
    (files / "ca.pem").write_bytes((files / "cert.pem").read_bytes())
    with pytest.raises(RuntimeUnavailable, match=rf"{host} \(Docker context 'remote' from .*verif"):
        await engine.open()
    (files / "ca.pem").write_text("no certificate")
    with pytest.raises(BadEndpoint, match=r"the TLS files for the Docker Engine at .* cannot be"):
        await engine.open()
    server.close()
    await server.wait_closed()


async def test_an_engine_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    with pytest.raises(RuntimeUnavailable, match=r"sock \(DOCKER_HOST\) does not answer: no "):
        await Engine().open()

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(other, tmp_path / "engine.sock")
    with pytest.raises(RuntimeUnavailable, match="is not a Docker Engine"):
        await Engine().open()
    server.close()


def test_a_socket_mounted_as_a_single_file_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_endpoint({"DOCKER_HOST": "unix:///run/docker.sock"})
    refused = ConnectionRefusedError(111, "refused")
    assert describe_refusal(found, refused) == "connection refused"
    monkeypatch.setattr(endpoints, "_is_mounted", lambda path: path == "/run/docker.sock")
    assert describe_refusal(found, refused).startswith(
        "connection refused: the socket is mounted as a single file"
    )
    assert describe_refusal(found, FileNotFoundError(2, "none")) == "no such file or directory"
