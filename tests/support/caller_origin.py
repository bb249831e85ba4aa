"""A replica for tests that calls other services of its mesh. Standard library only.

`/call/NAME` calls the service NAME through `MESH_URL_NAME` and passes its answer on, `/bad` answers
with 500, `/slow` takes half a second, and everything else answers at once.
"""

import os
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers a request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, body = 200, b"ok\n"
        if "/call/" in self.path:
            name = self.path.rpartition("/")[2].upper()
            try:
                with urllib.request.urlopen(os.environ[f"MESH_URL_{name}"]) as answer:
                    body = answer.read()
            except urllib.error.HTTPError as error:
                with error:
                    status, body = error.code, error.read()
        elif self.path.endswith("/bad"):
            status = 500
        elif self.path.endswith("/slow"):
            time.sleep(0.5)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
