"""The proxies of `bench.contenders` as servers of TLS and HTTP/2, and one sample of their cost.

`bench.tls` and `bench.http2` use it. Each proxy gets the same certificate (ECDSA P-256), offers
HTTP/2 and HTTP/1.1 to clients with TLS, or takes HTTP/2 with prior knowledge without TLS, and sends
HTTP/1.1 to one origin. Settings of TLS are each program's own defaults, but all offer TLS 1.3,
which nginx before 1.23 does not by itself.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import contenders
from bench.contenders import COMPILED, Setting, installed, max_connections
from bench.kernel import cpu_seconds
from bench.proxy import Results
from bench.running import NotServing, running
from bench.scenes import ClientFailed

Load = Callable[[int, float, Path, int], int]
"""Puts load on a port for some seconds, with files in a directory, from a core; returns how many
requests were answered. Raises ClientFailed."""
FEWEST: Final = 5
"""Requests per sample; a sample with fewer means that something is wrong."""

WARM_UPS: Final = 3
"""Seconds of load before a measurement, at most."""


@dataclass(frozen=True)
class Secure(Setting):
    """A setting with `tls`, or with HTTP/2 without TLS. `certificate` and `key` are PEM files,
    `both` has the contents of both."""

    tls: bool = True
    certificate: str = ""
    key: str = ""
    both: str = ""


def make_certificate(home: Path) -> tuple[str, str, str]:
    """Create a self-signed certificate. Return the paths of its file, its key and both in one."""
    certificate, key, both = (str(home / name) for name in ("cert.pem", "key.pem", "both.pem"))
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-keyout", key, "-out", certificate, "-days", "30"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    Path(both).write_text(Path(certificate).read_text() + Path(key).read_text())
    for path in (certificate, key, both):
        os.chmod(path, 0o644)
    return certificate, key, both


def ours(setting: Secure) -> list[str]:
    command = contenders.ours(setting)
    if setting.tls:
        command += ["--tls-cert", setting.certificate, "--tls-key", setting.key]
    return command


def ours_compiled(setting: Secure) -> list[str]:
    return ["env", f"PYTHONPATH={COMPILED}", sys.executable, "-P", *ours(setting)[1:]]


def nginx(setting: Secure) -> list[str]:
    command = contenders.nginx(setting)
    path = Path(command[-1])
    kind = " ssl http2" if setting.tls else " http2"
    files = f"ssl_certificate {setting.certificate}; ssl_certificate_key {setting.key};"
    files += " ssl_protocols TLSv1.2 TLSv1.3;"
    if not setting.tls:
        files = ""
    listen = f"listen 127.0.0.1:{setting.port}"
    text = path.read_text().replace(
        f"{listen} backlog=4096;", f"{listen}{kind} backlog=4096; {files}"
    )
    path.write_text(text)
    return command


def haproxy(setting: Secure) -> list[str]:
    command = contenders.haproxy(setting)
    path = Path(command[-1])
    kind = f"ssl crt {setting.both} alpn h2,http/1.1" if setting.tls else "proto h2"
    text = path.read_text().replace("backlog 4096\n", f"backlog 4096 {kind}\n")
    # Its default for sessions is a fifth of the descriptors with TLS.
    text = text.replace(f"maxconn {max_connections()}", f"maxconn {max_connections() // 2}")
    path.write_text(text)
    return command


def envoy(setting: Secure) -> list[str]:
    command = contenders.envoy(setting)
    if setting.tls:
        path = Path(command[2])
        kind = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
        socket = f"""
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/{kind}
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates:
            - certificate_chain: {{filename: {setting.certificate}}}
              private_key: {{filename: {setting.key}}}
"""
        path.write_text(path.read_text().replace("\n  clusters:", f"{socket}  clusters:"))
    return command


def traefik(setting: Secure) -> list[str]:
    command = contenders.traefik(setting)
    if setting.tls:
        path = setting.home / "routes.yaml"
        files = f"{{certFile: {setting.certificate}, keyFile: {setting.key}}}"
        text = path.read_text().replace("service: origin}}", "service: origin, tls: {}}}")
        path.write_text(text + f"tls: {{certificates: [{files}]}}\n")
    return command


def caddy(setting: Secure) -> list[str]:
    command = contenders.caddy(setting)
    path = setting.home / "Caddyfile"
    text = path.read_text().replace(
        "admin off\n", "admin off\n  servers {\n protocols h1 h2 h2c\n }\n"
    )
    if setting.tls:
        text = text.replace("http://127.0.0.1:", "https://127.0.0.1:", 1)
        files = f"tls {setting.certificate} {setting.key}"
        text = text.replace("bind 127.0.0.1\n", f"bind 127.0.0.1\n  {files}\n")
    path.write_text(text)
    return command


CONTENDERS: Final[dict[str, Callable[[Secure], list[str]]]] = {
    "ours": ours,
    "ours-compiled": ours_compiled,
    "nginx": nginx,
    "haproxy": haproxy,
    "envoy": envoy,
    "traefik": traefik,
    "caddy": caddy,
}


@dataclass
class SecureBench:
    """One run.

    - `home`: directory for files
    - `base_port`: port of the origin; the proxies use the next one
    - `seconds`: load per sample
    - `results`: samples by scene and proxy
    - `problems`: messages to print at the end
    """

    home: Path
    base_port: int
    seconds: float
    results: Results = field(default_factory=Results)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._files = make_certificate(self.home)
        self.cores = sorted(os.sched_getaffinity(0))

    def serve(
        self, name: str, act: Callable[[int, int, Path], float], scene: str, *, tls: bool
    ) -> None:
        """Start a proxy and add `act(pid, port, directory)` to the samples of a scene."""
        port = self.base_port + 1
        with tempfile.TemporaryDirectory(dir=self.home) as text:
            home = Path(text)
            os.chmod(home, 0o755)
            certificate, key, both = self._files
            setting = Secure(
                home, port, self.base_port, tls=tls, certificate=certificate, key=key, both=both
            )
            try:
                command = CONTENDERS[name](setting)
                with running(command, port, self.cores[:1], home) as pid:
                    self.results.add(scene, name, act(pid, port, home))
            except (NotServing, ClientFailed, OSError, subprocess.SubprocessError) as error:
                self.problems.append(f"{name}, {scene}: {error}")

    def cost(self, name: str, scene: str, load: Load, *, tls: bool) -> None:
        """Take one sample of the CPU time per request, in microseconds."""

        def act(pid: int, port: int, home: Path) -> float:
            core = self.cores[-1]
            _warm_up(load, port, home, core)
            before = cpu_seconds(pid)
            requests = load(port, self.seconds, home, core)
            spent = cpu_seconds(pid) - before
            if requests < FEWEST:
                raise ClientFailed(f"only {requests} requests were answered")
            return spent / requests * 1e6

        self.serve(name, act, scene, tls=tls)


def _warm_up(load: Load, port: int, home: Path, core: int) -> None:
    """Put load on a proxy for a second. A server may accept before it knows its routes, so try it
    again for a while."""
    for left in reversed(range(WARM_UPS)):
        try:
            load(port, 1, home, core)
            return
        except ClientFailed:
            if not left:
                raise


def run(
    options: argparse.Namespace,
    scenes: Sequence[tuple[str, Load, bool]],
    last: Callable[[SecureBench, Sequence[str]], None] | None = None,
) -> int:
    """Measure scenes (name, load, whether the client uses TLS), print a table for each, then call
    `last`. Return the exit status."""
    names = chosen(options.only)
    with tempfile.TemporaryDirectory(prefix="bench-") as text:
        home = Path(text)
        os.chmod(home, 0o755)
        (home / "origin").mkdir()
        bench = SecureBench(home, options.port, options.seconds)
        command = contenders.origin(home / "origin", options.port)
        with running(command, options.port, bench.cores[-1:], home / "origin"):
            for scene, load, tls in scenes:
                if options.scenes in scene:
                    for _ in range(options.rounds):
                        for name in names:
                            bench.cost(name, scene, load, tls=tls)
                    print(bench.results.table(scene, names, "CPU µs per request"), flush=True)
            if last is not None:
                last(bench, names)
    for problem in bench.problems:
        print(f"problem: {problem}")
    return 1 if bench.problems else 0


def arguments(description: str, port: int) -> argparse.ArgumentParser:
    """Return the parser of the options that both benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=3, help="samples per scene and proxy")
    parser.add_argument("--seconds", type=float, default=3.0, help="load per sample")
    parser.add_argument("--only", default="", help="proxies, separated by commas")
    parser.add_argument("--scenes", default="", help="only scenes with this in their name")
    parser.add_argument("--port", type=int, default=port, help="first of two ports")
    return parser


def chosen(only: str) -> list[str]:
    """Return the names of the installed proxies, or of those that are wanted."""
    wanted = only.split(",") if only else list(CONTENDERS)
    return [name for name in CONTENDERS if name in wanted and installed(name)]
