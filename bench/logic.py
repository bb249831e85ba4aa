"""Cost of the proxy's own logic per request, without sockets, kernel and event loop.

Drives the two protocol classes of one worker by hand: the bytes of a request are passed to the
client side, and a write to the origin side is answered at once. Parsing, routing, picking,
rewriting and counting remain. It is fast and precise enough to evaluate a single change, which
`bench.proxy` is not; only that one shows the cost of a request in production.

    python -m bench.logic [--endpoints 3] [--constant] [--answers varied] [--log] [--record]
        [--parts]

For the compiled form (`make compile`): PYTHONPATH=build/compiled:. python -P bench/logic.py.
"""

import argparse
import asyncio
import cProfile
import pstats
import time
from collections.abc import Callable
from itertools import cycle
from typing import Any, Final, cast

from bench.scenes import HEADERS
from proxy.http1.request import END, parse_request
from proxy.http1.request_template import match_templates
from proxy.observe.access_log import AccessLog
from proxy.observe.flight_ring import FlightRing
from proxy.observe.spans import SpanQueue
from proxy.request import connection_pool
from proxy.request.data_plane import DataPlane
from proxy.request.downstream import Downstream
from proxy.request.exchange import Exchange
from proxy.request.sinks import ResponseSink
from proxy.request.upstream import Upstream
from proxy.state.endpoint_state import EndpointState
from proxy.state.head_cache import MAX_ENTRIES
from proxy.wire.snapshot import (
    Endpoint,
    Generation,
    Listener,
    Route,
    Service,
    Snapshot,
    Target,
)

LISTENER: Final = Listener("127.0.0.1:8080", "public")
BODY: Final = b'{"id":12345,"status":"delivered","items":[{"sku":"A-1","n":2}],"total":"23.40"}'
ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 01 Jun 2026 10:00:%02d GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n%b"
)
CHUNKED: Final = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 01 Jun 2026 10:00:%02d GMT\r\n"
    b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
)
ROUND: Final = 20_000
"""Requests per round."""


def alike() -> list[list[bytes]]:
    """Return one answer."""
    return [[ANSWER % (0, len(BODY), BODY)]]


def varied() -> list[list[bytes]]:
    """Answers of more lengths than a worker remembers heads."""
    bodies = [BODY + b" " * more for more in range(4 * MAX_ENTRIES)]
    return [[ANSWER % (0, len(body), body)] for body in bodies]


def split() -> list[list[bytes]]:
    """Return an answer whose head and body arrive separately."""
    return [[ANSWER % (0, len(BODY), b""), BODY]]


def chunked() -> list[list[bytes]]:
    """Return an answer with one chunk and the last one."""
    return [[CHUNKED % (0, len(BODY), BODY)]]


ANSWERS: Final = {each.__name__: each for each in (alike, varied, split, chunked)}


class Wire:
    """A transport that only counts writes."""

    def __init__(self) -> None:
        self.written: Callable[[bytes], None] = self._count
        self.writes = 0

    def _count(self, data: bytes) -> None:
        del data
        self.writes += 1

    def write(self, data: bytes) -> None:
        self.written(data)

    def set_write_buffer_limits(self, high: int) -> None:
        """Do nothing: nothing is buffered."""

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 40_000) if name == "peername" else None

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        """Do nothing: no connection exists."""

    close = write_eof = pause_reading = resume_reading = abort


class Scene:
    """One worker with idle connections to each endpoint, and one client."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: argparse.Namespace) -> None:
        self.plane = plane = DataPlane(
            0,
            loop,
            access_log=AccessLog() if options.log else None,
            spans=SpanQueue(options.spans) if options.spans else None,
            flights=FlightRing() if options.record else None,
        )
        endpoints = tuple(
            Endpoint(id=f"r{i}", host="127.0.0.1", port=9000 + i) for i in range(options.endpoints)
        )
        plane.install(
            Snapshot(
                Generation(1, 1),
                listeners=(LISTENER,),
                services=(Service(name="shop/web", fingerprint="f", endpoints=endpoints),),
                routes=(Route(id="all", targets=(Target("shop/web"),)),),
            )
        )
        self.client = Downstream(plane, LISTENER)
        self.wire = Wire()
        self.client.connection_made(cast("asyncio.Transport", self.wire))
        for endpoint in plane.services["shop/web"].ready:
            self._idle_connection(endpoint)
        self.answers = ANSWERS[options.answers]()

    def _idle_connection(self, endpoint: EndpointState) -> None:
        """A connection to an endpoint that is open already."""
        upstream = Upstream(self.plane, endpoint, ResponseSink())
        wire = Wire()

        def sent(data: bytes) -> None:
            del data
            self.answering = upstream

        wire.written = sent
        upstream.connection_made(cast("asyncio.Transport", wire))
        connection_pool.keep(endpoint, upstream, self.plane.clock())

    def play(self, requests: list[bytes]) -> float:
        """Return the CPU seconds for all requests."""
        data_received = self.client.data_received
        answers = self.answers
        begin = time.process_time()
        for request, answer in zip(requests, cycle(answers), strict=False):
            data_received(request)
            upstream = self.answering
            for piece in answer:
                upstream.data_received(piece)
        return time.process_time() - begin


def requests(options: argparse.Namespace, first: int) -> list[bytes]:
    """Return requests like those of `bench.scenes`: unique ones, or all the same."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    made = []
    for number in range(first, first + ROUND):
        tag = "constant" if options.constant else f"tag-{number}"
        path = "/api/orders" if options.constant else f"/api/orders/{number}"
        made.append(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n{fields}"
            f"X-Request-Tag: {tag}\r\n\r\n".encode()
        )
    return made


async def measure(options: argparse.Namespace) -> None:
    """Print the best and the median of several rounds."""
    scene = Scene(asyncio.get_running_loop(), options)
    scene.play(requests(options, 1000))
    if options.parts:
        for name, part in parts(scene, requests(options, 5000)[0]).items():
            print_cost(name, part)
    profile = cProfile.Profile()
    times = []
    for turn in range(options.rounds):
        made = requests(options, 1_000_000 + turn * ROUND)
        if options.profile:
            profile.enable()
        times.append(scene.play(made))
        profile.disable()
    if options.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
    best, middle = min(times), sorted(times)[len(times) // 2]
    print(f"best {best / ROUND * 1e6:.2f} µs, median {middle / ROUND * 1e6:.2f} µs per request")
    scene.plane.close()


def parts(scene: Scene, request: bytes) -> dict[str, Callable[[], object]]:
    """Return the parts of a request's path that can be called separately."""
    plane, client = scene.plane, scene.client
    templates = client._templates
    service = plane.services["shop/web"]
    ready, counters = service.ready, service.counters
    endpoint = ready[0]
    head = match_templates(templates, request.removesuffix(END))
    assert head is not None

    def in_and_out() -> None:
        endpoint.start(1.0)
        endpoint.finish(1.0)

    return {
        "nothing": lambda: None,
        "head, parsed": lambda: parse_request(request[:-4], plane.head_cache.requests),
        "head, by a template": lambda: match_templates(templates, request.removesuffix(END)),
        "route": lambda: plane.routing.fast_path_route(head.host or b""),
        "exchange": lambda: Exchange(plane, client, head, 1.0),
        "retry budget": lambda: service.budget.deposit(1.0),
        "pick": lambda: service.picker.pick(ready, None, plane.random, 1.0),
        "in flight, shared": in_and_out,
        "request id": plane.next_id,
        "forwarded fields": lambda: client.forwarded_lines(head),
        "latency and health": lambda: endpoint.record_success(0.001, 1.0, 1),
        "status counted": lambda: counters.count_response(b"GET", 200),
        "one histogram": lambda: counters.fast_path_latency.record(0.001),
        "clock": plane.clock,
    }


def print_cost(name: str, part: Callable[[], object]) -> None:
    """Print the best of several rounds of one part, without the cost of the call."""
    turns = range(ROUND)
    best = []
    for call in (part, lambda: None):
        times = []
        for _ in range(7):
            begin = time.process_time()
            for _ in turns:
                call()
            times.append(time.process_time() - begin)
        best.append(min(times))
    print(f"{name:20}{max(0.0, best[0] - best[1]) / ROUND * 1e6:8.2f} µs")


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time of the proxy's logic per request.")
    parser.add_argument("--endpoints", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--constant", action="store_true", help="all requests are the same")
    parser.add_argument(
        "--answers", choices=sorted(ANSWERS), default="alike", help="answers of the origin"
    )
    parser.add_argument("--log", action="store_true", help="with an access log")
    parser.add_argument("--record", action="store_true", help="with the flight recorder")
    parser.add_argument(
        "--spans", type=float, default=0.0, metavar="SHARE", help="with spans of this share"
    )
    parser.add_argument("--parts", action="store_true", help="print the cost of each part")
    parser.add_argument("--profile", action="store_true", help="print a profile")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
