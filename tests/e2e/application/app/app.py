"""The program of the application: a migration, a web service, a worker, a scheduler, a UDP counter.

It knows nothing of meshd: other services are found by their Compose names. The first argument names
the part to run.
"""

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

import psycopg2
import redis

ATTEMPTS = 60
"""Connections to the database that one request may try, with a short pause in between."""


def query(text: str, *values: object) -> list[tuple[Any, ...]]:
    """Run one statement in one transaction; return its rows."""
    connection = psycopg2.connect(os.environ["DATABASE_URL"], connect_timeout=3)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(text, values)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def cache() -> "redis.Redis[bytes]":
    return redis.Redis(host=os.environ["CACHE_HOST"], port=6379, socket_timeout=5)


def migrate() -> None:
    query("create table if not exists entries (id text primary key, kind text)")
    query("create table if not exists runs (at timestamp default now())")
    query("insert into runs default values")
    print("migrated")


def work() -> None:
    while True:
        found = cache().blpop(["jobs"], timeout=2)
        if found:
            query("insert into entries values (%s, 'job')", found[1].decode())
            print("did", found[1].decode())


def schedule() -> None:
    while True:
        query("insert into entries values (%s, 'tick')", str(time.time_ns()))
        time.sleep(0.5)


def count_datagrams() -> None:
    count = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", 8125))
        while True:
            data, sender = sock.recvfrom(2048)
            count += 1
            sock.sendto(b"%d %s" % (count, data), sender)


def ask_metrics(text: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(3)
        sock.sendto(text.encode(), ("metrics", 8125))
        return sock.recv(2048).decode()


def ask_broker(text: str) -> str:
    publish = ["mosquitto_pub", "-h", "broker", "-r", "-t", "t", "-m", text]
    subprocess.run(publish, check=True, timeout=5)
    receive = ["mosquitto_sub", "-h", "broker", "-t", "t", "-C", "1", "-W", "3"]
    return subprocess.run(
        receive, check=True, timeout=5, capture_output=True, text=True
    ).stdout.strip()


def resolve(name: str) -> list[str]:
    return sorted({str(each[4][0]) for each in socket.getaddrinfo(name, None, socket.AF_INET)})


def rows(kind: str) -> list[str]:
    return [str(row[0]) for row in query("select id from entries where kind = %s", kind)]


def write(name: str) -> str:
    query("insert into entries values (%s, 'write') on conflict do nothing", name)
    return name


ANSWERS: dict[str, Callable[[str], object]] = {
    "/healthz": lambda _: "ok",
    "/version": lambda _: os.environ["VERSION"],
    "/served": lambda _: {"replica": socket.gethostname(), "version": os.environ["VERSION"]},
    "/environment": lambda _: sorted(os.environ),
    "/resolve": resolve,
    "/write": write,
    "/rows": rows,
    "/job": lambda name: cache().rpush("jobs", name),
    "/runs": lambda _: query("select count(*) from runs")[0][0],
    "/metrics": ask_metrics,
    "/broker": ask_broker,
    "/slow": lambda seconds: time.sleep(float(seconds)),
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, argument = self.path.partition("?")
        status, answer = 200, None
        try:
            answer = ANSWERS[path](urllib.parse.unquote(argument))
        except KeyError:
            status = 404
        except (psycopg2.Error, redis.RedisError, OSError, subprocess.SubprocessError) as error:
            status, answer = 500, str(error)
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the checks look at other lines."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128


def serve() -> None:
    """Serve until SIGTERM, then finish the requests that run."""
    query("select 1")  # as most do, fail at the start without a database
    cache().ping()
    server = Server(("0.0.0.0", 8000), Handler)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print("web: database and cache answer")
    server.serve_forever()


PARTS = {
    "migrate": migrate,
    "web": serve,
    "worker": work,
    "scheduler": schedule,
    "metrics": count_datagrams,
}

if __name__ == "__main__":
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    PARTS[sys.argv[1]]()
