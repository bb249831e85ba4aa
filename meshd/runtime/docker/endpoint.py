"""Which Docker Engine to use: its address and TLS settings, found as the `docker` command does.

Used by `engine` at each connect and by `meshd.runtime.select` before the start. The order is that
of the Docker CLI: `DOCKER_HOST`, then the context that `DOCKER_CONTEXT` or `currentContext` in the
configuration names, then the default sockets.
"""

import errno
import hashlib
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from meshd.runtime.base import RuntimeUnavailable

DEFAULT_CONTEXT: Final = "default"
"""The context without a file: `DOCKER_HOST` or the default sockets."""
TLS_PORT: Final = 2376
"""The port that is registered for the engine with TLS."""
PLAIN_PORT: Final = 2375
"""The port that is registered for the engine without TLS."""
DEFAULT_SOCKETS: Final = (
    "/run/docker.sock",
    "/var/run/docker.sock",
    "~/.docker/run/docker.sock",
)
"""Where an engine listens that nothing names, in this order."""


class BadEndpoint(RuntimeUnavailable):
    """The settings name no engine that meshd can use; the text names the setting."""


@dataclass(frozen=True, slots=True)
class EngineEndpoint:
    """An engine to connect to.

    - `address`: `unix:///PATH`, `tcp://HOST:PORT` or `http(s)://HOST:PORT`.
    - `source`: where the address is from, for people.
    - `ca`, `certificate`, `key`: files for TLS; empty: none.
    - `tls`: whether to use TLS; `verifies`: whether to check the engine's certificate.
    """

    address: str
    source: str
    ca: str = ""
    certificate: str = ""
    key: str = ""
    tls: bool = False
    verifies: bool = True

    def __str__(self) -> str:
        return f"{self.address} ({self.source})"

    @property
    def socket_path(self) -> str:
        """The path of the engine's Unix socket; empty for TCP."""
        return self.address.removeprefix("unix://") if self.address.startswith("unix://") else ""

    @property
    def url(self) -> str:
        """The address as the client library takes it."""
        if self.socket_path:
            return self.address
        parts = urlsplit(self.address)
        port = parts.port or (TLS_PORT if self.tls else PLAIN_PORT)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{'https' if self.tls else 'http'}://{host}:{port}"

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS context; None without TLS. Raises BadEndpoint."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if not self.verifies:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.certificate and self.key:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(filter(None, (self.ca, self.certificate, self.key)))
            raise BadEndpoint(
                f"the TLS files for the Docker Engine at {self} cannot be used: {error} ({files})"
            ) from error
        return context


def find_endpoint(environment: Mapping[str, str] = os.environ) -> EngineEndpoint:
    """Return the engine that the settings name. Raises BadEndpoint."""
    directory = Path(environment.get("DOCKER_CONFIG") or Path.home() / ".docker")
    if host := environment.get("DOCKER_HOST"):
        return _checked(_from_host(host, environment, directory))
    name = environment.get("DOCKER_CONTEXT", "")
    source = "DOCKER_CONTEXT"
    if not name:
        name, source = _current_context(directory), f"currentContext in {directory}/config.json"
    if name and name != DEFAULT_CONTEXT:
        return _checked(_from_context(name, source, directory))
    for socket in DEFAULT_SOCKETS:
        path = Path(socket).expanduser()
        if path.is_socket():
            return EngineEndpoint(f"unix://{path}", "the default socket")
    raise BadEndpoint(
        f"no Docker Engine found: no socket at {', '.join(DEFAULT_SOCKETS)}, and neither "
        "DOCKER_HOST nor a Docker context names one"
    )


def find_named(name: str, environment: Mapping[str, str] = os.environ) -> EngineEndpoint:
    """Return the engine at an address (`ssh://` too), or that of a Docker context. TLS is as for
    DOCKER_HOST. Raises BadEndpoint."""
    directory = Path(environment.get("DOCKER_CONFIG") or Path.home() / ".docker")
    if "://" in name:
        found = _from_host(name, environment, directory, "the command line")
    else:
        found = _from_context(name, "the command line", directory)
    return found if found.address.startswith("ssh://") else _checked(found)


def _from_host(
    host: str, environment: Mapping[str, str], directory: Path, source: str = "DOCKER_HOST"
) -> EngineEndpoint:
    verifies = bool(environment.get("DOCKER_TLS_VERIFY"))
    tls = verifies or bool(environment.get("DOCKER_TLS")) or host.startswith("https://")
    endpoint = EngineEndpoint(host, source)
    if not tls or host.startswith(("unix://", "ssh://")):
        return endpoint
    files = Path(environment.get("DOCKER_CERT_PATH") or directory)
    return _with_tls(endpoint, files, verifies or host.startswith("https://"))


def _with_tls(endpoint: EngineEndpoint, files: Path, verifies: bool) -> EngineEndpoint:
    """Return the endpoint with the TLS files that exist in a directory."""
    ca, certificate, key = (
        str(files / name) if (files / name).exists() else ""
        for name in ("ca.pem", "cert.pem", "key.pem")
    )
    return EngineEndpoint(
        endpoint.address, endpoint.source, ca, certificate, key, tls=True, verifies=verifies
    )


def _current_context(directory: Path) -> str:
    """Return the name of the current context; empty if none is chosen. Raises BadEndpoint."""
    file = directory / "config.json"
    try:
        config = json.loads(file.read_text())
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise BadEndpoint(f"{file} cannot be read: {error}") from error
    return str(config.get("currentContext") or "") if isinstance(config, dict) else ""


def _from_context(name: str, source: str, directory: Path) -> EngineEndpoint:
    digest = hashlib.sha256(name.encode()).hexdigest()
    file = directory / "contexts" / "meta" / digest / "meta.json"
    try:
        found: Any = json.loads(file.read_text())["Endpoints"]["docker"]
        endpoint = EngineEndpoint(str(found["Host"]), f"Docker context {name!r} from {source}")
        skips = bool(found.get("SkipTLSVerify"))
    except FileNotFoundError as error:
        raise BadEndpoint(
            f"the Docker context {name!r} from {source} does not exist; see `docker context ls`"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadEndpoint(
            f"the Docker context {name!r} from {source} cannot be read: {file}: {error}"
        ) from error
    files = directory / "contexts" / "tls" / digest / "docker"
    if endpoint.address.startswith(("unix://", "ssh://")) or not (files.is_dir() or skips):
        return endpoint
    return _with_tls(endpoint, files, not skips)


def _checked(endpoint: EngineEndpoint) -> EngineEndpoint:
    """Return the endpoint. Raises BadEndpoint if meshd cannot use an address of its kind."""
    scheme, colon, rest = endpoint.address.partition("://")
    if scheme == "ssh" and colon:
        raise BadEndpoint(
            f"the Docker Engine at {endpoint} is not usable: ssh:// is not supported, because "
            "meshd must reach the containers' addresses; run meshd on the engine's host"
        )
    if scheme not in ("unix", "tcp", "http", "https") or not colon:
        raise BadEndpoint(
            f"the Docker Engine at {endpoint} is not usable: expected unix:///PATH or "
            "tcp://HOST:PORT"
        )
    try:
        valid = bool(rest) and (scheme == "unix" or bool(urlsplit(endpoint.address).hostname))
        if scheme != "unix":
            _ = urlsplit(endpoint.address).port
    except ValueError:
        valid = False
    if not valid:
        raise BadEndpoint(
            f"the Docker Engine at {endpoint} is not usable: expected unix:///PATH or "
            "tcp://HOST:PORT"
        )
    return endpoint


def describe_refusal(endpoint: EngineEndpoint, error: BaseException | None) -> str:
    """Return why an engine cannot be reached, for people."""
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        reason = os.strerror(error.errno).lower()
    else:
        reason = str(error) if error else "no connection"
    refused = isinstance(error, OSError) and error.errno == errno.ECONNREFUSED
    if refused and endpoint.socket_path and _is_mounted(endpoint.socket_path):
        reason += (
            ": the socket is mounted as a single file, which does not follow the new socket of a "
            "restarted engine; mount its directory instead, and restart this container"
        )
    return reason


def _is_mounted(path: str) -> bool:
    """Return whether a single file is a mount point, as with `docker run -v FILE:FILE`."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    return os.path.realpath(path) in (line.split()[4] for line in mounts)
