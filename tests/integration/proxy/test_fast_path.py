"""The fast path of the proxy, which a connection takes from about its third request: it does the
same as the slow path, and everything unusual falls back to the slow path."""

import json
import time
from collections.abc import Callable
from functools import partial

import pytest

from proxy.http1.limits import INTERIM_RESPONSES
from proxy.observe.access_log import AccessLog
from proxy.observe.spans import SpanQueue
from proxy.wire.snapshot import Balance, Ejection, Limits, Retries, Timeouts
from tests.support.proxy_scene import (
    OK,
    Client,
    Scene,
    Script,
    Visit,
    answers,
    get,
    named_ok,
    on_uvloop,
    scene,
    service,
)
from tests.support.waiting import elapse, wait_until

LESSONS = 4


def numbered(number: int, *lines: str) -> bytes:
    return get(f"/{number}", f"X-Tag: {number}", "Accept: */*", *lines)


def posted(number: int, *lines: str, method: str = "POST") -> bytes:
    body = b"{}" * (number + 1)
    sized = (f"Content-Length: {len(body)}", *lines)
    return get(f"/{number}", *sized).replace(b"GET", method.encode(), 1) + body


async def taught(made: Scene, request: Callable[[int], bytes] = numbered) -> Client:
    """Return a client whose requests have a template."""
    client = await made.client()
    for number in range(LESSONS):
        await client.send(request(number))
        assert (await client.response())[0] == 200
    return client


def taken(made: Scene) -> int:
    """Return how many requests took the fast path since the last call."""
    recorded = made.plane.services["shop"].counters.fast_path_latency.drain()
    return sum(recorded.counts.values())


def after(good: int, *then: bytes, close: bool = False) -> Script:
    """Return an origin that sends `good` good answers on its first connection, then the others,
    each in a separate segment."""

    async def script(visit: Visit) -> None:
        for _ in range(good):
            await visit.head()
            await visit.send(OK)
        if close:
            return
        await visit.head()
        for piece in then:
            await visit.send(piece)
            await elapse(0.02, "the pieces arrive one by one")
        await visit.wait_closed()

    return script


@on_uvloop
async def test_the_fast_path_sends_the_same_bytes() -> None:
    async with scene() as made:
        (origin,) = await made.serve(answers(OK))
        client = await taught(made)
        assert taken(made) == 1, "the first ones have to be parsed"
        await client.send(numbered(7))
        short = await client.response()
        assert taken(made) == 1
        other = await made.ask(numbered(7)[:20])
        await elapse(0.02, "the pieces arrive one by one")
        await other.send(numbered(7)[20:])
        assert short == await other.response()
        assert taken(made) == 0, "a request in pieces is parsed"
        heads = b"".join(visit.raw for visit in origin.visits).split(b"\r\n\r\n")[:-1]
        one, two = (
            [line for line in head.split(b"\r\n") if not line.startswith(b"X-Request-Id")]
            for head in heads
            if head.startswith(b"GET /7 ")
        )
        assert one == two
        ids = [head.partition(b"X-Request-Id: ")[2] for head in heads]
        assert len(set(ids)) == len(ids) == LESSONS + 2


@on_uvloop
async def test_a_new_connection_starts_with_the_cached_heads() -> None:
    async with scene() as made:
        (origin,) = await made.serve(answers(OK))
        await taught(made)
        taken(made)
        other = await made.ask(numbered(5))
        assert (await other.response())[0] == 200
        assert taken(made) == 1
        made.install(
            *(state.config for state in made.plane.services.values()),
            trusted_proxies=("127.0.0.0/8",),
        )
        request = numbered(6, "X-Forwarded-For: 10.0.0.9")
        for _ in range(LESSONS):
            trusted = await made.ask(request)
            assert (await trusted.response())[0] == 200
            await trusted.send(request)
            assert (await trusted.response())[0] == 200
        seen = b"".join(visit.raw for visit in origin.visits)
        assert seen.count(b"X-Forwarded-For: 10.0.0.9, 127.0.0.1\r\n") == 2 * LESSONS


@on_uvloop
async def test_services_and_endpoints_without_requests_are_left_out_of_a_report() -> None:
    async with scene() as made:
        used, idle = await made.origin(answers(OK)), await made.origin(answers(OK))
        made.install(
            service(used, name="used", balance=Balance("round-robin")),
            service(used, idle, name="idle"),
        )
        client = await made.ask(numbered(1))
        assert (await client.response())[0] == 200

        (counted,) = made.plane.report(0.0, 1.0, busy_only=True).services
        assert (counted.name, counted.arrivals, len(counted.endpoints)) == ("used", 1, 1)
        assert made.plane.report(1.0, 2.0, busy_only=True).services == ()
        assert len(made.plane.report(2.0, 3.0).services) == 2


@on_uvloop
async def test_everything_is_counted() -> None:
    async with scene() as made:
        await made.serve(answers(OK))
        await taught(made)
        (counted,) = made.plane.report(0.0, 1.0).services
        (endpoint,) = counted.endpoints
        assert counted.arrivals == endpoint.started == endpoint.succeeded == LESSONS
        assert counted.codes == {"GET 2xx": LESSONS}
        assert counted.bytes_out == 2 * LESSONS
        for histogram in (counted.total, counted.first_byte, endpoint.latency):
            assert sum(histogram.counts.values()) == LESSONS
            assert histogram.sum > 0.0
        assert endpoint.in_flight == 0
        again = made.plane.report(1.0, 2.0).services[0]
        assert not again.total.counts
        assert again.arrivals == 0


@pytest.mark.parametrize(
    ("pieces", "status", "body"),
    [
        ((b"HTTP/1.1 200 OK\r\nContent-", b"Length: 4\r\n\r\nabcd"), 200, b"abcd"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", b"cd"), 200, b"abcd"),
        ((b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno",), 500, b"no"),
        ((b"HTTP/1.1 404 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",), 404, b"no"),
        ((b"HTTP/1.1 204 Empty\r\n\r\n",), 204, b""),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok surplus",), 200, b"ok"),
    ],
)
@on_uvloop
async def test_answers_of_other_kinds(pieces: tuple[bytes, ...], status: int, body: bytes) -> None:
    async with scene() as made:
        await made.serve(after(LESSONS, *pieces))
        client = await taught(made)
        await client.send(numbered(8))
        found, _, got = await client.response()
        assert (found, got) == (status, body)


@on_uvloop
async def test_an_ambiguous_answer_is_not_passed_on() -> None:
    async with scene() as made:
        bad = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"
        await made.serve(after(LESSONS, bad))
        client = await taught(made)
        await client.send(numbered(8))
        assert (await client.response())[0] == 502


@on_uvloop
async def test_a_closed_idle_connection_causes_no_failure() -> None:
    async with scene() as made:
        await made.serve(after(LESSONS, close=True), retries=Retries(attempts=0))
        client = await taught(made)
        await client.send(numbered(8))
        assert (await client.response())[0] == 200


@on_uvloop
async def test_no_answer_in_time() -> None:
    async with scene() as made:
        await made.serve(
            after(LESSONS), timeouts=Timeouts(first_byte=0.2), retries=Retries(attempts=0)
        )
        client = await taught(made)
        await client.send(numbered(8))
        assert (await client.response())[0] == 504


@on_uvloop
async def test_a_client_that_leaves_releases_its_slots() -> None:
    async with scene() as made:
        (origin,) = await made.serve(after(LESSONS), ejection=Ejection(consecutive=1))
        client = await taught(made)
        await client.send(numbered(8))
        await wait_until(lambda: b"/8" in origin.visits[0].raw)
        client.close()
        state = made.plane.services["shop"].endpoints["shop-0"]
        await wait_until(lambda: not state.counters.in_flight and not state.connections)
        assert not made.plane.services["shop"].in_flight
        assert not state.health.failures


@on_uvloop
async def test_routes_change_under_a_connection() -> None:
    async with scene() as made:
        await made.serve(answers(named_ok(b"one")))
        client = await taught(made)
        await made.serve(answers(named_ok(b"two")))
        await client.send(numbered(8))
        assert (await client.response())[2] == b"two"
        made.install(routes=())
        await client.send(numbered(9))
        assert (await client.response())[0] == 404


@on_uvloop
async def test_requests_sent_ahead_are_answered_in_turn() -> None:
    async with scene() as made:
        await made.serve(answers(*(named_ok(b"%d" % n) for n in range(LESSONS + 4))))
        client = await taught(made)
        await client.send(b"".join(numbered(n) for n in range(LESSONS, LESSONS + 4)))
        got = [(await client.response())[2] for _ in range(4)]
        assert got == [b"%d" % n for n in range(LESSONS, LESSONS + 4)]


@on_uvloop
async def test_a_bad_request_after_good_ones_is_refused() -> None:
    async with scene() as made:
        await made.serve(answers(OK))
        client = await taught(made)
        await client.send(numbered(8).replace(b"X-Tag: 8", b"X-Tag: 8\nEvil: 1"))
        assert (await client.response())[0] == 400
        assert await client.rest() == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@on_uvloop
async def test_small_bodies_take_the_fast_path(method: str) -> None:
    async with scene() as made:
        (origin,) = await made.serve(answers(OK))
        client = await taught(made, lambda number: posted(number, method=method))
        before = taken(made)
        await client.send(posted(7, method=method))
        assert (await client.response())[0] == 200
        assert (before, taken(made)) == (2, 1)
        sent = b"".join(visit.raw for visit in origin.visits)
        assert sent.endswith(b"\r\n\r\n" + b"{}" * 8)
        counted = made.plane.report(0.0, 1.0).services[0]
        assert counted.bytes_in == 2 * (1 + 2 + 3 + 4 + 8)
        assert counted.codes == {f"{method} 2xx": LESSONS + 1}


@on_uvloop
async def test_a_body_may_come_later_or_in_pieces_or_with_the_next_request() -> None:
    async with scene() as made:
        (origin,) = await made.serve(answers(OK))
        client = await taught(made, posted)
        whole = posted(8)
        head, end, body = whole.partition(b"\r\n\r\n")
        for pieces in ((head + end, body), (head + end + body[:3], body[3:])):
            for piece in pieces:
                await client.send(piece)
                await elapse(0.01, "the pieces arrive one by one")
            assert (await client.response())[0] == 200
        await client.send(posted(9) + posted(1))
        assert [(await client.response())[0] for _ in range(2)] == [200, 200]
        sent = b"".join(visit.raw for visit in origin.visits)
        tail = sent[sent.index(b"POST /8 ") :]
        assert [part[: part.find(b"P") % 99] for part in tail.split(b"\r\n\r\n")[1:]] == [
            b"{}" * 9,
            b"{}" * 9,
            b"{}" * 10,
            b"{}" * 2,
        ]


@on_uvloop
async def test_a_body_over_the_limit_is_413_on_both_paths() -> None:
    async with scene() as made:
        await made.serve(answers(OK), limits=Limits(body=10))
        client = await taught(made, posted)
        await client.send(posted(5))
        assert (await client.response())[0] == 413


@pytest.mark.parametrize(("method", "status", "times"), [("POST", 502, 1), ("PUT", 200, 2)])
@on_uvloop
async def test_a_post_is_not_sent_twice_and_a_put_is(method: str, status: int, times: int) -> None:
    async with scene() as made:
        (origin,) = await made.serve(after(LESSONS), retries=Retries(attempts=0))
        client = await taught(made, lambda number: posted(number, method=method))
        first = origin.visits[0]
        await client.send(posted(8, method=method))
        await wait_until(lambda: b"/8" in first.raw)
        origin.script = answers(OK)
        first.abort()
        assert (await client.response())[0] == status
        sent = b"".join(visit.raw for visit in origin.visits)
        assert sent.count(b"%b /8 " % method.encode()) == times
        assert sent.endswith(b"{}" * 9)


@on_uvloop
async def test_each_request_keeps_its_own_id() -> None:
    async with scene() as made:
        (origin,) = await made.serve(answers(OK))

        def request(number: int) -> bytes:
            return numbered(number, f"X-Request-Id: id-{number}")

        client = await taught(made, request)
        before = taken(made)
        await client.send(request(7))
        assert (await client.response())[0] == 200
        assert (before, taken(made)) == (1, 1)
        (last,) = [h for h in origin.visits[0].raw.split(b"\r\n\r\n") if h.startswith(b"GET /7 ")]
        assert last.lower().count(b"x-request-id: id-7") == 1
        assert last.lower().count(b"x-request-id") == 1


CALLS = {
    "mesh": lambda n, name, token: numbered(n).replace(b"shop.test", name.encode()),
    "token": lambda n, name, token: numbered(n).replace(
        b"GET /", f"GET /.mesh/{token}/{name}/".encode()
    ),
}


@pytest.mark.parametrize("kind", ["mesh", "token"])
@on_uvloop
async def test_calls_between_services_take_the_fast_path(kind: str) -> None:
    call = CALLS[kind]
    async with scene(kind=kind, caller="demo/orders") as made:
        origin = await made.origin(answers(OK))
        made.install(
            service(origin, name="demo/payments", allow=("demo/orders",)),
            service(origin, name="demo/secret", allow=("demo/admin",)),
            service(origin, name="demo/limited", limits=Limits(service_in_flight=9)),
            routes=(),
            credentials={"t0ken": "demo/orders"},
        )
        client = await made.client()
        for number in range(LESSONS + 2):
            await client.send(call(number, "payments", "t0ken"))
            assert (await client.response())[0] == 200
        for name, status in (("secret", 403), ("limited", 200), ("none", 404)):
            for number in range(2):
                await client.send(call(number, name, "t0ken"))
                assert (await client.response())[0] == status
        payments, secret, limited = made.plane.services.values()
        short = sum(payments.counters.fast_path_latency.drain().counts.values())
        assert short >= 2
        assert not limited.counters.fast_path_latency.drain().counts
        assert secret.counters.denied == 2
        counted = made.plane.report(0.0, 1.0).services[0]
        assert counted.calls == {"demo/orders": LESSONS + 2}
        assert 0.0 < counted.call_seconds["demo/orders"] < 5.0
        lines = [one for one in origin.visits[0].raw.split(b"\r\n") if one.startswith(b"GET ")]
        assert lines[: LESSONS + 2] == [b"GET /%d HTTP/1.1" % n for n in range(LESSONS + 2)]


@on_uvloop
async def test_a_token_is_checked_again_after_each_change() -> None:
    async with scene(kind="token") as made:
        origin = await made.origin(answers(OK))
        payments = service(origin, name="demo/payments")
        made.install(payments, routes=(), credentials={"t0ken": "demo/orders"})
        client = await made.client()
        for number in range(LESSONS + 1):
            await client.send(CALLS["token"](number, "payments", "t0ken"))
            assert (await client.response())[0] == 200
        made.install(payments, routes=(), credentials={"other": "demo/orders"})
        await client.send(CALLS["token"](9, "payments", "t0ken"))
        assert (await client.response())[0] == 403
        await client.send(CALLS["token"](9, "payments?x", "other"))
        assert (await client.response())[0] == 200
        assert b"GET /?x/9 HTTP/1.1" in origin.visits[0].raw


@on_uvloop
async def test_both_paths_write_the_same_access_log() -> None:
    log = AccessLog("json")
    async with scene({"access_log": log}) as made:
        await made.serve(answers(OK))

        def request(number: int) -> bytes:
            agent = '"quoted"' if number == 9 else "t/1"
            return posted(number, "Referer: http://r/", f"User-Agent: {agent}", "Accept: */*")

        client = await taught(made, request)
        taken(made)
        for number in (8, 9):
            await client.send(request(number))
            assert (await client.response())[0] == 200
        assert taken(made) == 1
        first, *_, short, quoted = map(json.loads, log.take().splitlines())
        assert quoted["user_agent"] == '"quoted"'
        assert (short["target"], short["bytes_in"], short["bytes_out"]) == ("/8", 18, 2)
        assert short["first_byte"] == short["total"] > 0.0
        assert set(first) == set(short)
        for name in ("client", "method", "version", "status", "host", "service", "endpoint"):
            assert short[name] == first[name], name
        assert (short["referer"], short["user_agent"]) == (first["referer"], first["user_agent"])
        assert abs(short["time"] - time.time()) < 60


@on_uvloop
async def test_neither_path_logs_a_hidden_parameter() -> None:
    log = AccessLog("json", query=("token",))
    async with scene({"access_log": log}) as made:
        await made.serve(answers(OK))

        def request(number: int) -> bytes:
            lines = ("Referer: http://r/?token=s3cret", "Accept: */*")
            return get(f"/{number}?a=1&token=s3cret", *lines)

        client = await taught(made, request)
        taken(made)
        await client.send(request(8))
        assert (await client.response())[0] == 200
        assert taken(made) == 1
        lines = log.take()
        assert b"s3cret" not in lines
        last = json.loads(lines.splitlines()[-1])
        assert last["target"] == "/8?a=1&token=REDACTED"
        assert last["referer"] == "http://r/?token=REDACTED"


ETAG = b"HTTP/1.1 200 OK\r\nETag: %d\r\n"
KINDS: dict[str, Callable[[int], bytes]] = {
    "sized": lambda n: ETAG % n + b"Content-Length: %d\r\n\r\n%b" % (n + 1, b"x" * (n + 1)),
    "chunked": lambda n: (
        ETAG % n
        + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (n + 1, b"x" * (n + 1))
    ),
}


@on_uvloop
@pytest.mark.parametrize("kind", KINDS)
async def test_answers_that_match_a_template_take_the_fast_path(kind: str) -> None:
    async with scene() as made:
        answer = KINDS[kind]

        async def script(visit: Visit) -> None:
            for number in range(40):
                await visit.head()
                await visit.send(answer(number))

        await made.serve(script)
        client = await made.client()
        for number in range(40):
            if number == LESSONS:
                taken(made)
            await client.send(numbered(number))
            head = await client.head()
            wanted, _, body = answer(number).partition(b"\r\n\r\n")
            assert sorted(head.strip().split(b"\r\n")) == sorted(
                [*wanted.split(b"\r\n"), b"Via: 1.1 meshd"]
            )
            assert await client.exactly(len(body)) == body
        assert taken(made) == 40 - LESSONS
        counted = made.plane.services["shop"].counters
        assert counted.drain("shop", 0.0, []).bytes_out == sum(
            len(answer(n).partition(b"\r\n\r\n")[2]) for n in range(40)
        )


@on_uvloop
async def test_only_requests_with_a_span_leave_the_fast_path() -> None:
    spans = SpanQueue(0.5)
    rolls: list[float] = []
    async with scene({"spans": spans, "random": lambda: rolls.pop(0) if rolls else 0.0}) as made:
        (origin,) = await made.serve(answers(OK))
        client = await taught(made)
        spans.take(100)
        taken(made)
        rolls += [0.9, 0.1, 0.7, 0.4, 0.6, 0.8]
        for number in range(6):
            await client.send(numbered(number + 100))
            assert (await client.response())[0] == 200
        recorded = [span.attributes["url.path"] for span in spans.take(100)]
        assert recorded == ["/101", "/103"]
        assert taken(made) == 4
        sent = origin.visits[0].raw.split(b"GET /100 ")[1]
        assert sent.count(b"traceparent:") == 2
        # Who decided that there is none is heard; who decided otherwise too.
        assert not rolls
        for flags, there in (("00", []), ("01", ["/201"])):
            await client.send(
                numbered(200 + int(flags), f"traceparent: 00-{'a' * 32}-{'b' * 16}-{flags}")
            )
            assert (await client.response())[0] == 200
            assert [span.attributes["url.path"] for span in spans.take(100)] == there


@on_uvloop
@pytest.mark.parametrize(
    ("query", "recorded"),
    [
        (True, "token=secret&b=1"),
        (("Token",), "token=REDACTED&b=1"),
        (False, None),
    ],
)
async def test_spans_leave_out_secrets(query: bool | tuple[str, ...], recorded: str | None) -> None:
    spans = SpanQueue(1.0, query=query)
    async with scene({"spans": spans}) as made:
        await made.serve(answers(OK))
        client = await made.client()
        for number in range(LESSONS + 2):
            await client.send(get(f"/{number}?token=secret&b=1"))
            assert (await client.response())[0] == 200
        found = spans.take(100)
        assert {span.attributes.get("url.query") for span in found} == {recorded}
        assert [span.attributes["url.path"] for span in found][-1] == f"/{LESSONS + 1}"


@on_uvloop
async def test_interim_answers_are_counted_request_by_request() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with scene() as made:
        (origin,) = await made.serve(answers(early + OK))
        client = await made.client()
        for number in range(LESSONS + INTERIM_RESPONSES + 1):
            await client.send(numbered(number))
            assert (await client.head()).startswith(b"HTTP/1.1 103 ")
            assert (await client.response())[::2] == (200, b"ok")
        assert len(origin.visits) == 1


@pytest.mark.parametrize("request_", [posted, partial(posted, method="PUT")])
@on_uvloop
async def test_an_origin_that_answers_before_reading_is_not_reused(
    request_: Callable[[int], bytes],
) -> None:
    """Unread bytes would precede the next request, and nothing would bound them."""
    async with scene() as made:

        async def script(visit: Visit) -> None:
            while True:
                head = await visit.head()
                if b" /9 " in head:
                    # As the transport does while the origin takes no more.
                    (busy,) = (each.exchange for each in made.plane.clients)
                    busy.upstream.pause_writing()
                await visit.send(OK)

        (origin,) = await made.serve(script)
        client = await taught(made, request_)
        for number in (9, 10):
            await client.send(request_(number))
            assert (await client.response())[::2] == (200, b"ok")
        assert len(origin.visits) == 2
