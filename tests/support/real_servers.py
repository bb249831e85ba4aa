"""Real servers as processes, and a real proxy in front of each.

uvicorn, aiohttp and node serve the same application: `/echo` describes the request, `/large?mib=N`
streams, `/events` sends six events, `/gzip` is compressed, `/etag` may answer 304, `/ws` echoes
(not in node). nginx and aiohttp serve files.
"""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.raw_http import Proxy
from tests.support.waiting import wait_until_blocking

HERE = Path(__file__).parent
TOOLS = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
MIB = bytes(range(256)) * 4096
TEXT = b"all work and no play\n" * 5000
FILE = MIB * 3 + b"the end"

NGINX = """
{user} daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 512; }}
http {{
  access_log off; gzip on; gzip_types *; gzip_proxied any; default_type text/plain;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; root {folder}; }}
}}
"""


def tool(name: str) -> str | None:
    """Return the path of a program; None if it is not installed."""
    return shutil.which(name, path=TOOLS)


class Served:
    """A server, and a proxy in front of it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.port = free_port()
        files = folder / "files"
        files.mkdir()
        (files / "data.bin").write_bytes(FILE)
        (files / "text.txt").write_bytes(TEXT)
        # Started as root, nginx would serve as a user who may not read this folder.
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=self.port, user=user))
        port = str(self.port)
        command = {
            "nginx": [tool("nginx") or "", "-c", str(folder / "nginx.conf"), "-p", str(folder)],
            "node": [tool("node") or "", str(HERE / "node_origin.js"), port],
            "uvicorn": [sys.executable, "-m", "uvicorn", "tests.support.asgi_app:app", "--port",
                        port,
                        "--log-level", "warning", "--ws-max-size", str(1 << 24)],
            "aiohttp": [sys.executable, str(HERE / "aiohttp_app.py"), port, str(files)],
        }[name]  # fmt: skip
        self._process = subprocess.Popen(command, cwd=ROOT)
        try:
            self._wait()
            self.proxy = Proxy([self.port], "--drain", "0s", "--workers", "2")
        except BaseException:
            self._end()
            raise
        self.address = f"127.0.0.1:{self.proxy.port}"
        self.direct = f"127.0.0.1:{self.port}"

    def _wait(self) -> None:
        def listens() -> bool:
            assert self._process.poll() is None, "the origin ended at once"
            with socket.socket() as probe:
                return not probe.connect_ex(("127.0.0.1", self.port))

        wait_until_blocking(listens, 20, "the origin listens", interval=0.05)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        try:
            self.proxy.stop()
        finally:
            self._end()
