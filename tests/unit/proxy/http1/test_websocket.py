"""Frames of a WebSocket: where one ends, however the bytes arrive."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.http1.websocket import GOING_AWAY, FrameTracker


def frame(size: int, *, masked: bool) -> bytes:
    """Return a frame with a payload of this many bytes."""
    if size < 126:
        length = bytes([size])
    elif size < 1 << 16:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    length = bytes([length[0] | 0x80 * masked]) + length[1:]
    return b"\x82" + length + b"mask" * masked + b"\x88\x02" * (size // 2) + b"x" * (size % 2)


SIZES = st.lists(
    st.tuples(st.sampled_from([0, 1, 5, 125, 126, 127, 300, 65535, 65536]), st.booleans()),
    max_size=6,
)


@given(SIZES, st.lists(st.integers(1, 70000), max_size=20))
def test_a_boundary_is_where_frames_end(sizes: list[tuple[int, bool]], cuts: list[int]) -> None:
    data, boundaries = b"", {0}
    for size, masked in sizes:
        data += frame(size, masked=masked)
        boundaries.add(len(data))
    tracker, at = FrameTracker(), 0
    for cut in (*cuts, len(data)):
        tracker.feed(data[at : at + cut])
        at = min(at + cut, len(data))
        assert tracker.at_boundary == (at in boundaries)


def test_bytes_one_by_one() -> None:
    data = frame(126, masked=True) + GOING_AWAY
    tracker = FrameTracker()
    ends = []
    for number in range(len(data)):
        tracker.feed(data[number : number + 1])
        if tracker.at_boundary:
            ends.append(number + 1)
    assert ends == [len(data) - len(GOING_AWAY), len(data)]
