"""Messages between processes of different versions."""

import msgspec
import pytest

from proxy.wire.codec import BadFrame, Decoder, encode
from proxy.wire.report import Histogram, Message, Publish, Report, ServiceReport
from proxy.wire.snapshot import Generation, SnapshotUpdate

SERVICE = ServiceReport("web", arrivals=5, total=Histogram({1: 5}, 0.5))
REPORT = Report(1, 2, 3.0, 4.0, Generation(1, 2), services=(SERVICE,))
PUBLISH = Publish(SnapshotUpdate(Generation(1, 2)))


def with_field(message: Message, *path: str | int) -> bytes:
    """Return a message, framed, with a field `of_tomorrow` in the object at a path."""
    plain = msgspec.to_builtins(message)
    place = plain
    for step in path:
        place = place[step]
    place["of_tomorrow"] = 1
    body = msgspec.msgpack.encode(plain)
    return len(body).to_bytes(4) + body


@pytest.mark.parametrize("path", [(), ("services", 0), ("services", 0, "total")])
def test_a_report_of_a_later_version_is_read(path: tuple[str | int, ...]) -> None:
    """So that the proxies of nodes can be upgraded before the daemon."""
    assert Decoder().feed(with_field(REPORT, *path)) == [REPORT]


@pytest.mark.parametrize("path", [(), ("update",)])
def test_a_snapshot_of_a_later_version_is_refused(path: tuple[str, ...]) -> None:
    """A proxy must not ignore a policy that it does not know."""
    assert Decoder().feed(encode(PUBLISH)) == [PUBLISH]
    with pytest.raises(BadFrame, match="of_tomorrow"):
        Decoder().feed(with_field(PUBLISH, *path))
