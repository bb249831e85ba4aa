"""A replica for tests that calls another service for each request. Standard library only.

Listens on $PORT. `/` calls the service in $CALLS once and answers; each request writes a line of
output.
"""

import os
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers with the status of the call."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status = 200
        if self.path == "/" and (called := os.environ.get("CALLS")):
            url = os.environ[f"MESH_URL_{called.upper()}"]
            with urllib.request.urlopen(f"{url}/?ms=2", timeout=10) as answer:
                status = answer.status
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *values: object) -> None:
        print(format % values, flush=True)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
