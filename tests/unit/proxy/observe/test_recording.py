"""Histograms, counters, trace context and access log lines."""

import json
from random import Random
from typing import Any

import pytest

from proxy.observe import log_line
from proxy.observe.access_log import AccessLog, Entry, Format, hide_token, quote
from proxy.observe.counters import EndpointCounters, ServiceCounters
from proxy.observe.histogram import HistogramRecorder
from proxy.observe.trace import continue_trace, parse_traceparent
from proxy.wire import buckets
from proxy.wire.buckets import index


def test_recorder_agrees_with_the_layout() -> None:
    random = Random(1)
    recorder = HistogramRecorder()
    times = [0.0, -0.5, 1e-9, 1e9, *(10 ** random.uniform(-5, 4) for _ in range(3000))]
    expected: dict[int, int] = {}
    for seconds in times:
        recorder.record(seconds)
        place = buckets.index(seconds)
        expected[place] = expected.get(place, 0) + 1
    taken = recorder.drain()
    assert taken.counts == expected
    assert taken.sum == pytest.approx(sum(times))
    empty = recorder.drain()
    assert (empty.counts, empty.sum) == ({}, 0.0)


def test_busy_seconds_are_exact() -> None:
    counters = EndpointCounters()
    now = 1_000_000.0
    counters.start(now)
    counters.start(now + 1.0)
    counters.finish(now + 2.0)
    first = counters.drain("e", now + 4.0)
    assert first.busy_seconds == pytest.approx(4.0 + 1.0)
    assert (first.in_flight, first.started) == (1, 2)
    second = counters.drain("e", now + 10.0)
    assert second.busy_seconds == pytest.approx(6.0)
    counters.finish(now + 11.0)
    third = counters.drain("e", now + 20.0, "rev", ejected=True)
    assert third.busy_seconds == pytest.approx(1.0)
    assert (third.in_flight, third.started, third.revision, third.ejected) == (0, 0, "rev", True)


def test_service_counters_are_deltas_and_gauges_stay() -> None:
    counters = ServiceCounters()
    counters.arrivals += 3
    counters.parked = 2
    counters.count_response(b"GET", 200)
    counters.count_response(b"GET", 204)
    counters.count_response(b"POST", 503)
    for number in range(100):
        counters.count_response(b"X%d" % number, 200)
    counters.count_failure("connect")
    counters.start_call("shop/cart", 10.0)
    counters.total.record(0.1)
    report = counters.drain("shop/web", 12.0)
    assert report.codes == {"GET 2xx": 2, "POST 5xx": 1, "OTHER 2xx": 100}
    assert (report.arrivals, report.parked) == (3, 2)
    assert report.failures == {"connect": 1}
    assert report.calls == {"shop/cart": 1}
    assert sum(report.total.counts.values()) == 1
    again = counters.drain("shop/web", 13.0)
    assert (again.arrivals, again.codes, again.failures, again.parked) == (0, {}, {}, 2)


TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = b"00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "valid"),
    [
        (b"00-%b-%b-01" % (TRACE, SPAN), True),
        (b"00-%b-%b-00" % (TRACE, SPAN), True),
        (b"cc-%b-%b-01-what-the-future" % (TRACE, SPAN), True),
        (b"cc-%b-%b-01.what" % (TRACE, SPAN), False),
        (b"00-%b-%b-01-more" % (TRACE, SPAN), False),
        (b"ff-%b-%b-01" % (TRACE, SPAN), False),
        (b"00-%b-%b-01" % (b"0" * 32, SPAN), False),
        (b"00-%b-%b-01" % (TRACE, b"0" * 16), False),
        (b"00-%b-%b-01" % (TRACE.upper(), SPAN), False),
        (b"00-%b-%b-0" % (TRACE, SPAN), False),
        (b"00_%b-%b-01" % (TRACE, SPAN), False),
        (b"00-%b-%b-zz" % (TRACE, SPAN), False),
        (b"", False),
        (None, False),
    ],
)
def test_traceparent(header: bytes | None, valid: bool) -> None:
    assert (parse_traceparent(header) is not None) is valid
    trace = continue_trace(header, Random(1).getrandbits)
    assert (trace.trace_id == TRACE) is valid
    assert trace.parent_id == (SPAN if valid else b"")
    assert trace.span_id != SPAN
    assert parse_traceparent(trace.header()) == (trace.trace_id, trace.span_id, trace.flags)


def test_sampling_is_passed_on() -> None:
    bits = Random(1).getrandbits
    assert continue_trace(b"00-%b-%b-03" % (TRACE, SPAN), bits).flags == b"01"
    assert not continue_trace(b"00-%b-%b-00" % (TRACE, SPAN), bits, sample=True).sampled
    assert continue_trace(None, bits, sample=True).sampled


def entry(**fields: object) -> Entry:
    base: dict[str, object] = {
        "time": 1700000000.5,
        "client": "127.0.0.1",
        "method": "GET",
        "target": "/a",
        "version": "HTTP/1.1",
        "status": 200,
    }
    return Entry(**{**base, **fields})  # type: ignore[arg-type]


def test_json_lines() -> None:
    log = AccessLog("json")
    log.add(entry(target='/"x"\n', total=0.25))
    log.add(entry(status=503, failure="connect"))
    first, second = map(json.loads, log.take().splitlines())
    assert first["target"] == '/"x"\n'
    assert first["total"] == 0.25
    assert "failure" not in first
    assert second["failure"] == "connect"
    assert log.take() == b""


def test_combined_lines() -> None:
    log = AccessLog("combined")
    log.add(entry(bytes_out=12, user_agent='evil" \r\n"agent', referer="http://r/"))
    assert log.take() == (
        b'127.0.0.1 - - [14/Nov/2023:22:13:20 +0000] "GET /a HTTP/1.1" 200 12'
        b' "http://r/" "evil\\" \\x0d\\x0a\\"agent"\n'
    )


def test_memory_is_bounded_and_losses_are_counted() -> None:
    log = AccessLog("json", limit=1000)
    for _ in range(100):
        log.add(entry())
    assert log.dropped > 80
    assert len(log.take()) < 1200
    log.add(entry())
    assert log.take()


def test_sampling_keeps_failures() -> None:
    log = AccessLog(sample=0.1)
    assert log.should_log(200, 0.05)
    assert not log.should_log(200, 0.5)
    assert log.should_log(502, 0.99)
    assert not AccessLog(sample=0.0).should_log(200, 0.0)


def test_quoted_leaves_plain_text() -> None:
    assert quote("a b") == '"a b"'
    assert quote('\\"') == '"\\\\\\""'


def test_the_time_callers_wait_is_integrated_over_intervals() -> None:
    counters = ServiceCounters()
    counters.start_call("shop/cart", 10.0)
    counters.start_call("shop/cart", 10.5)
    assert counters.drain("shop/web", 11.0).call_seconds == {"shop/cart": 1.5}
    counters.end_call("shop/cart", 11.25)
    assert counters.drain("shop/web", 12.0).call_seconds == {"shop/cart": 1.25}
    counters.end_call("shop/cart", 12.5)
    assert counters.drain("shop/web", 13.0).call_seconds == {"shop/cart": 0.5}
    assert counters.drain("shop/web", 14.0).call_seconds == {}


def test_requests_of_each_caller_have_errors_and_latencies() -> None:
    counters = ServiceCounters()
    for _ in range(3):
        counters.start_call("shop/cart", 10.0)
    counters.start_call("shop/admin", 10.0)
    counters.count_call("shop/admin")
    counters.finish_call("shop/cart", 10.5, False, index(0.5), 0.5)
    counters.finish_call("shop/cart", 11.0, True, index(1.0), 1.0)
    report = counters.drain("shop/web", 11.0)
    assert report.calls == {"shop/cart": 3, "shop/admin": 2}
    assert report.call_errors == {"shop/cart": 1}
    assert list(report.call_latency) == ["shop/cart"]
    assert report.call_latency["shop/cart"].counts == {index(0.5): 1, index(1.0): 1}
    assert report.call_latency["shop/cart"].sum == 1.5
    counters.finish_call("shop/cart", 12.0, False, index(2.0), 2.0)
    report = counters.drain("shop/web", 12.0)
    assert (report.calls, report.call_errors) == ({}, {})
    assert report.call_latency["shop/cart"].counts == {index(2.0): 1}
    assert report.call_seconds == {"shop/cart": 1.0, "shop/admin": 1.0}
    counters.record_call("shop/admin", index(0.25), 0.25)
    counters.end_call("shop/admin", 12.5)
    counters.start_call("shop/admin", 12.5)
    report = counters.drain("shop/web", 13.0)
    assert report.call_latency["shop/admin"].counts == {index(0.25): 1}
    counters.drain("shop/web", 14.0)
    assert set(counters._calls) == {"shop/admin"}, "only its request is in flight"


def usual_line(**changed: Any) -> bytes | None:
    values: dict[str, Any] = {
        "began": 1_700_000_000.25,
        "client": b"10.0.0.9",
        "method": b"POST",
        "target": b"/orders?n=1&q=%22",
        "status": 200,
        "host": b"shop.example:8080",
        "bytes_in": 12,
        "bytes_out": 34,
        "seconds": 0.012345,
        "request_id": b"0a1b",
        "referer": b"http://shop.example/",
        "user_agent": b"t/1 (X; y)",
    }
    form = log_line.make_template('shop/w%d"', "w-1", "rev", "HTTP/1.1")
    return log_line.format_line(form, **{**values, **changed})


def test_a_fast_path_line_equals_the_general_one() -> None:
    log = AccessLog("json")
    entry = Entry(
        time=1_700_000_000.25,
        client="10.0.0.9",
        method="POST",
        target="/orders?n=1&q=%22",
        version="HTTP/1.1",
        status=200,
        host="shop.example:8080",
        service='shop/w%d"',
        endpoint="w-1",
        revision="rev",
        bytes_in=12,
        bytes_out=34,
        total=0.012345,
        queue=float(0),
        connect=float(0),
        body=float(0),
        first_byte=0.012345,
        request_id="0a1b",
        referer="http://shop.example/",
        user_agent="t/1 (X; y)",
    )
    log.add(entry)
    made = usual_line()
    assert made is not None
    log.add_line(made)
    general, short = (json.loads(line) for line in log.take().splitlines())
    assert short == general
    assert list(short) == list(general)
    less = usual_line(bytes_in=0, referer=None, user_agent=b"")
    assert less is not None
    assert set(general) - set(json.loads(less)) == {"bytes_in", "referer", "user_agent"}


@pytest.mark.parametrize("name", ["target", "request_id", "referer", "user_agent"])
@pytest.mark.parametrize("value", [b'a"b', b"a\\b", b"a\tb", b"a\x80b", b"a\xc3\xa4"])
def test_lines_that_need_an_escape_take_the_slow_path(name: str, value: bytes) -> None:
    assert usual_line(**{name: value}) is None


def test_fast_path_lines_are_bounded() -> None:
    log = AccessLog("json", limit=10)
    for _ in range(3):
        log.add_line(b"x" * 9)
    assert log.take() == (b"x" * 9 + b"\n")
    assert log.dropped == 2


@pytest.mark.parametrize(
    ("query", "target", "logged"),
    [
        (True, "/a?token=x", "/a?token=x"),
        ((), "/a?token=x", "/a?token=x"),
        (False, "/a?token=x?y", "/a"),
        (False, "/a", "/a"),
        (("token", "Key"), "/a?b=1&token=x&KEY=y%26&c", "/a?b=1&token=REDACTED&KEY=REDACTED&c"),
        (("token",), "/a?%74oken=x;token=y", "/a?%74oken=REDACTED;token=REDACTED"),
        (("token",), "/a?u=/b?token=x", "/a?u=/b?token=REDACTED"),
        (("token",), "/a?mytoken=x&token", "/a?mytoken=x&token"),
    ],
)
@pytest.mark.parametrize("form", ["json", "combined"])
def test_query_strings_can_be_left_out_of_the_log(
    form: Format, query: bool | tuple[str, ...], target: str, logged: str
) -> None:
    log = AccessLog(form, query=query)
    url = "https://site.example"
    assert log.hides is (query not in (True, ()))
    assert log.must_redact(target.encode(), None) is ("?" in target)
    log.add(Entry(0.0, "1.2.3.4", "GET", target, "HTTP/1.1", 200, referer=url + target))
    line = log.take().decode()
    if form == "json":
        assert json.loads(line)["target"] == logged
        assert json.loads(line)["referer"] == url + logged
    else:
        assert f'"GET {logged} HTTP/1.1"' in line
        assert f'"{url}{logged}"' in line


def test_the_last_recorded_trace_of_each_duration_is_reported_once() -> None:
    counters = ServiceCounters()
    counters.add_exemplar("a", 0.010, 1.0)
    counters.add_exemplar("b", 0.011, 2.0)
    counters.add_exemplar("c", 0.5, 3.0)
    found = counters.drain("shop/web", 10.0).exemplars
    assert [(each.trace_id, each.seconds) for each in found] == [("b", 0.011), ("c", 0.5)]
    assert counters.drain("shop/web", 11.0).exemplars == ()


@pytest.mark.parametrize(
    ("target", "hidden"),
    [
        ("/.mesh/t0ken/web/a?b=/.mesh/", "/.mesh/REDACTED/web/a?b=/.mesh/"),
        ("/.mesh/t0ken", "/.mesh/REDACTED"),
        ("/.mesh/", "/.mesh/REDACTED"),
        ("/a/.mesh/b", "/a/.mesh/b"),
        ("/.mesh", "/.mesh"),
        ("http://web:80/.mesh/t0ken/web/a", "http://web:80/.mesh/REDACTED/web/a"),
        ("/.mesh/t0ken?a=1", "/.mesh/REDACTED?a=1"),
        ("", ""),
    ],
)
def test_tokens_of_callers_are_hidden(target: str, hidden: str) -> None:
    assert hide_token(target) == hidden
