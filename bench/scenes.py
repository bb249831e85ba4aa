"""The scenes in which proxies are measured, and wrk as the client."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HEADERS: Final = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/126.0.0.0 Safari/537.36",
    "Accept": "application/json, text/plain, */*",
    "Accept-Language": "en-GB,en;q=0.9,de-DE;q=0.8,de;q=0.7",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Cookie": "session=eyJhbGciOiJIUzI1NiJ9.eyJ1aWQiOjEyMzQ1Njc4OTAsInJvbGUiOiJjdXN0b21lciJ9;"
    " theme=dark; consent=analytics:0,marketing:0; ab=checkout-b",
    "Authorization": "Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6ImsxIn0.eyJzdWIiOiIxMjM0NTY3ODkwIiwiYXVkIj"
    "oic2hvcCIsImV4cCI6MTk5OTk5OTk5OX0.c2lnbmF0dXJlLXNpZ25hdHVyZS1zaWduYXR1cmU",
    "Referer": "http://shop.example/menu/pizza?sort=distance&open=now",
    "Origin": "http://shop.example",
    "Cache-Control": "no-cache",
    "Sec-Fetch-Mode": "cors",
    "X-Client-Version": "web-4.18.2",
}


@dataclass(frozen=True)
class Scene:
    """One scene.

    - `unique`: a new path and one new header value in each request
    - `body`: bytes of a JSON POST; 0 for a GET
    - `bare`: only the headers that the client adds itself
    - `log`: with an access log
    - `workers`: worker processes of the proxy
    - `close`: a new connection for each request
    - `tls`: over TLS, without a check of the certificate
    - `longer`: factor on the duration, for scenes in which opening connections would count too much
    - `partner`: another scene, measured in turn with this one
    """

    name: str
    path: str = "/api/orders"
    connections: int = 64
    unique: bool = False
    body: int = 0
    bare: bool = False
    log: bool = False
    workers: int = 1
    close: bool = False
    tls: bool = False
    longer: int = 1
    partner: "Scene | None" = None

    def script(self) -> str:
        """Return the wrk script of the scene."""
        lines = [f'wrk.method = "{"POST" if self.body else "GET"}"']
        headers = {} if self.bare else dict(HEADERS)
        if self.close:
            headers["Connection"] = "close"
        if self.body:
            headers["Content-Type"] = "application/json"
            lines.append(
                f"wrk.body = '{{\"note\":\"' .. string.rep('x', {self.body - 11}) .. '\"}}'"
            )
        lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
        if not self.unique:
            lines.append('wrk.headers["X-Request-Tag"] = "constant"')
            return "\n".join(lines)
        # The request is formatted once; only path and one value are inserted each time, so that
        # the client uses little CPU time.
        lines.append(
            f"""
local head, tail, count = "", "", 0
function init(args)
  local whole = wrk.format(nil, "/@@")
  local at = whole:find("/@@", 1, true)
  head = whole:sub(1, at - 1) .. "{self.path}/"
  tail = whole:sub(at + 3):gsub("\\r\\n\\r\\n$", "\\r\\nX-Request-Tag: ")
  count = math.floor(os.clock() * 1e6) % 1000000 * 1000
end
function request()
  count = count + 1
  return head .. count .. tail .. "tag-" .. count .. "\\r\\n\\r\\n"
end"""
        )
        return "\n".join(lines)


SCENES: Final = (
    Scene("small GET, unique, 64 conns", unique=True),
    Scene("small GET, unique, 1000 conns", unique=True, connections=1000, longer=4),
    Scene("small GET, constant, 64 conns"),
    Scene("small GET, bare, 64 conns", bare=True),
    Scene("small GET, unique, answers differ", path="/varied", unique=True),
    Scene("4 KiB JSON POST", path="/api/orders/new", body=4096),
    Scene("100 KiB response", path="/files/100k", connections=16),
    Scene("10 MiB response", path="/files/10m", connections=4),
    Scene("small GET, unique, access log", unique=True, log=True),
    Scene("small GET, a connection each", close=True, connections=16),
    Scene(
        "small GET, unique, 2 workers",
        unique=True,
        workers=2,
        partner=Scene("small GET, unique, 1 worker in turn with 2", unique=True),
    ),
)


@dataclass(frozen=True)
class Load:
    """The counts of wrk. `seconds` is the duration, `p99` is in seconds."""

    requests: int
    errors: int
    seconds: float
    p99: float


class ClientFailed(Exception):
    """wrk did not run, or its report cannot be parsed."""


UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


def play(scene: Scene, port: int, seconds: float, home: Path, core: int) -> Load:
    """Run wrk on one core against a port. Raises ClientFailed."""
    script = home / "scene.lua"
    script.write_text(scene.script())
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{scene.connections}"]
    command += [f"-d{max(1, round(seconds))}s", "--latency", "--timeout", "20s", "-s", str(script)]
    command.append(f"{'https' if scene.tls else 'http'}://127.0.0.1:{port}{scene.path}")
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=seconds + 60
    )
    return parse(done.stdout, done.stderr)


def parse(text: str, error: str = "") -> Load:
    """Parse wrk's report. Raises ClientFailed."""
    total = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)", text)
    tail = re.search(r"99%\s+([\d.]+)(us|ms|s|m)", text)
    if total is None or tail is None:
        raise ClientFailed(error.strip() or text)
    errors = [int(n) for n in re.findall(r"(?:connect|read|write|timeout) (\d+)", text)]
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return Load(
        requests=int(total[1]),
        errors=sum(errors) + (int(wrong[1]) if wrong else 0),
        seconds=float(total[2]) * UNITS[total[3]],
        p99=float(tail[1]) * UNITS[tail[2]],
    )
