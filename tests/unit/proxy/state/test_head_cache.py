"""Response heads are parsed once, and the last one of a service is kept."""

from proxy.http1.request import END
from proxy.http1.response_template import ResponseTemplates
from proxy.state.head_cache import MAX_HEAD_BYTES, HeadCache


def head(number: int, *, size: int = 1) -> bytes:
    return b"HTTP/1.1 200 OK\r\nX-Tag: %d\r\nX-Fill: %b" % (number, b"x" * size)


def test_a_head_that_was_read_is_found_and_kept_as_the_last_one() -> None:
    cache, templates = HeadCache(), ResponseTemplates()
    assert cache.find_response(head(1), templates) is None
    assert templates.last_bytes != head(1) + END
    first = cache.read_response(head(1), templates)
    assert cache.find_response(head(1), templates) is first
    assert (templates.last_bytes, templates.last) == (head(1) + END, first)
    other = cache.read_response(head(2), templates)
    assert cache.find_response(head(2), templates) is other
    assert (templates.last_bytes, templates.last) == (head(2) + END, other)


def test_a_long_head_is_not_kept() -> None:
    cache, templates = HeadCache(), ResponseTemplates()
    for number in (1, 2, 3):
        cache.read_response(head(number, size=MAX_HEAD_BYTES), templates)
    assert cache.find_response(head(4, size=MAX_HEAD_BYTES), templates) is not None
    assert len(templates.last_bytes) <= MAX_HEAD_BYTES
