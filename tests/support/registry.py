"""A real image registry (Debian's docker-registry) for tests, with or without authentication.

Several registries may serve the same storage directory: one without authentication to push to, and
one with, to pull from. The engine accepts HTTP on loopback addresses.
"""

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from tests.support.ports import free_port
from tests.support.waiting import wait_until_blocking

# Made by `htpasswd -nbB -C 5 ada secret`.
HTPASSWD = "ada:$2y$05$BnrpIeC49l7XZhC6w54zI.p83gtvM0WuLbtyokZrgrWy6UEmCoxSm\n"
USER, PASSWORD = "ada", "secret"
IDENTITY_TOKEN = "an-identity-token"
SERVICE = "registry.test"
TOKEN_SECONDS = 300


@contextmanager
def registry(
    storage: Path, auth: dict[str, object] | None = None, host: str = "127.0.0.1"
) -> Iterator[str]:
    """Run a registry on the images in `storage`, at an address of this host; yield HOST:PORT."""
    storage.mkdir(exist_ok=True)
    port = free_port()
    config = storage.with_name(f"{storage.name}-{port}.json")
    config.write_text(
        json.dumps(
            {
                "version": 0.1,
                "log": {"level": "warn", "accesslog": {"disabled": True}},
                "storage": {"filesystem": {"rootdirectory": str(storage)}},
                "http": {"addr": f"{host}:{port}"},
                **({"auth": auth} if auth else {}),
            }
        )
    )
    log = config.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["docker-registry", "serve", config], stdout=output, stderr=output
        )
    try:

        def answers() -> bool:
            assert process.poll() is None, log.read_text()[-2000:]
            request = ["curl", "-s", "-o", "/dev/null", f"http://{host}:{port}/v2/"]
            return subprocess.run(request, check=False).returncode == 0

        wait_until_blocking(answers, 10, "the registry answers", interval=0.05)
        yield f"{host}:{port}"
    finally:
        process.terminate()
        process.wait(30)


def htpasswd_auth(directory: Path) -> dict[str, object]:
    """Return the settings of a registry that accepts USER with PASSWORD."""
    file = directory / "htpasswd"
    file.write_text(HTPASSWD)
    return {"htpasswd": {"realm": "test", "path": str(file)}}


class TokenServer:
    """A token server as registries use them: it accepts USER with PASSWORD, or an identity token.

    `requests` has what was presented, in order.
    """

    def __init__(self, directory: Path) -> None:
        self._key, self._certificate = directory / "key.pem", directory / "cert.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tokens",
             "-days", "2", "-keyout", self._key, "-out", self._certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        self._port = free_port()
        self._runner: web.AppRunner | None = None
        self.requests: list[str] = []

    def auth(self) -> dict[str, object]:
        """Return the settings of a registry that accepts the tokens of this server."""
        return {
            "token": {
                "realm": f"http://127.0.0.1:{self._port}/token",
                "service": SERVICE,
                "issuer": "tokens",
                "rootcertbundle": str(self._certificate),
            }
        }

    async def __aenter__(self) -> "TokenServer":
        app = web.Application()
        app.router.add_get("/token", self._by_password)
        app.router.add_post("/token", self._by_identity_token)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _by_password(self, request: web.Request) -> web.Response:
        header = request.headers.get("Authorization")
        self.requests.append("password" if header else "nothing")
        expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if header and header != f"Basic {expected}":
            return web.json_response({"details": "wrong password"}, status=401)
        access = request.query.get("scope", "") if header else ""
        return web.json_response({"token": self._token(access)})

    async def _by_identity_token(self, request: web.Request) -> web.Response:
        form = await request.post()
        self.requests.append("identity token")
        if form.get("refresh_token") != IDENTITY_TOKEN:
            return web.json_response({"details": "wrong identity token"}, status=401)
        return web.json_response({"access_token": self._token(str(form.get("scope", "")))})

    def _token(self, scope: str) -> str:
        """Return a signed token that allows what `scope` asks for: `repository:NAME:pull`."""
        now = int(time.time())
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        access = [{"type": kind, "name": name, "actions": actions.split(",")}] if scope else []
        lines = self._certificate.read_text().splitlines()
        header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(lines[1:-1])]}
        claims = {
            "iss": "tokens", "sub": USER, "aud": SERVICE, "jti": str(time.time_ns()),
            "iat": now, "nbf": now - 10, "exp": now + TOKEN_SECONDS, "access": access,
        }  # fmt: skip
        signed = f"{_encode(json.dumps(header).encode())}.{_encode(json.dumps(claims).encode())}"
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self._key],
            input=signed.encode(), check=True, capture_output=True,
        ).stdout  # fmt: skip
        return f"{signed}.{_encode(signature)}"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
