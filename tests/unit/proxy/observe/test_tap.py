"""Which requests a watcher gets, and how many."""

import msgspec
import pytest

from proxy.observe import tap
from proxy.observe.access_log import AccessLog, Entry
from proxy.observe.tap import Matcher, Tap, TapFilter, TapLine, TapLog


def entry(**more: object) -> Entry:
    known = {
        "time": 1.0, "client": "c", "method": "GET", "target": "/a?token=x", "version": "HTTP/1.1",
        "status": 200, "service": "shop/web", "total": 0.1,
    }  # fmt: skip
    return msgspec.convert({**known, **more}, Entry)


@pytest.mark.parametrize(
    ("wanted", "more", "expected"),
    [
        ({}, {}, True),
        ({"service": "shop/web"}, {}, True),
        ({"service": "shop/web"}, {"service": "shop/web:81"}, True),
        ({"service": "shop/web"}, {"service": "shop/web2"}, False),
        ({"service": "shop/web"}, {"service": ""}, False),
        ({"path": "^/a"}, {}, True),
        ({"path": "^/b"}, {}, False),
        ({"status": "200"}, {}, True),
        ({"status": "2xx"}, {"status": 204}, True),
        ({"status": "5xx"}, {}, False),
        ({"status": "404"}, {"status": 403}, False),
        ({"slower": 0.1}, {}, True),
        ({"slower": 0.11}, {}, False),
    ],
)
def test_filters(wanted: dict[str, object], more: dict[str, object], expected: bool) -> None:
    found = Matcher(msgspec.convert(wanted, TapFilter)).matches(entry(**more))
    assert found is expected


@pytest.mark.parametrize("wanted", [{"path": "("}, {"status": "9xx"}, {"status": "x"}])
def test_filters_that_are_not_valid(wanted: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="is not a valid"):
        Matcher(msgspec.convert(wanted, TapFilter))


def test_a_watcher_gets_a_limited_number_and_learns_what_it_missed() -> None:
    sent: list[TapLine] = []
    watcher = Tap(
        TapFilter(), lambda raw: sent.append(msgspec.json.decode(raw, type=TapLine)), now=0.0
    )
    for _ in range(500):
        watcher.offer(entry(), now=0.0)
    assert len(sent) == tap.LINES_PER_SECOND
    watcher.offer(entry(), now=1.0)
    assert sent[-1].lost == 300
    assert sent[-1].request == entry()


def test_a_watcher_that_does_not_read_or_is_gone_stops_nothing() -> None:
    errors: list[OSError] = [BlockingIOError(), BlockingIOError(), ConnectionRefusedError()]

    def send(raw: bytes) -> None:
        raise errors.pop(0)

    watcher = Tap(TapFilter(), send, now=0.0)
    for _ in range(5):
        watcher.offer(entry(), now=0.0)
    assert watcher.gone
    assert not errors


def test_the_log_behind_gets_its_share_and_its_redaction_holds() -> None:
    sent: list[bytes] = []
    behind = AccessLog("json", sample=0.5, query=("token",))
    log = TapLog(behind, [Tap(TapFilter(), sent.append, 0.0)], lambda: 0.0)
    for roll in (0.9, 0.1):
        assert log.should_log(200, roll)
        log.add(entry())
    assert len(sent) == 2
    assert all(b"token=REDACTED" in raw for raw in sent)
    assert behind.take().count(b"\n") == 1
    alone = TapLog(None, [Tap(TapFilter(), sent.append, 0.0)], lambda: 0.0)
    assert alone.should_log(200, 0.9)
    alone.add(entry())
    assert b"token=x" in sent[-1]
