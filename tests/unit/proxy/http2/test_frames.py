"""`FrameGuard`: frames behind the end of a stream, and frames without any effect."""

import pytest

from proxy.http2.frames import (
    FINE,
    MAX_STREAMS_KEPT,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    FrameGuard,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
END = 1


def frame(kind: int, stream: int, flags: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


CASES: dict[str, tuple[list[bytes], int]] = {
    "requests": ([frame(HEADERS, 1, END), frame(HEADERS, 3, END)], FINE),
    "a body": ([frame(HEADERS, 1), frame(DATA, 1), frame(DATA, 1, END)], FINE),
    "trailers": ([frame(HEADERS, 1), frame(DATA, 1), frame(HEADERS, 1, END)], FINE),
    "streams side by side": (
        [frame(HEADERS, 1), frame(HEADERS, 3), frame(DATA, 1, END), frame(DATA, 3, END)],
        FINE,
    ),
    "a reset of an ended stream": ([frame(HEADERS, 1, END), frame(RST_STREAM, 1)], FINE),
    "DATA behind the end": ([frame(HEADERS, 1, END), frame(DATA, 1)], STREAM_CLOSED),
    "HEADERS behind the end": ([frame(HEADERS, 1, END), frame(HEADERS, 1, END)], STREAM_CLOSED),
    "DATA behind a reset": (
        [frame(HEADERS, 1), frame(RST_STREAM, 1), frame(DATA, 1)],
        STREAM_CLOSED,
    ),
    "HEADERS behind a reset": (
        [frame(HEADERS, 1), frame(RST_STREAM, 1), frame(HEADERS, 1)],
        STREAM_CLOSED,
    ),
    "a smaller stream": ([frame(HEADERS, 5, END), frame(HEADERS, 3, END)], PROTOCOL_ERROR),
    "PRIORITY on no stream": ([frame(PRIORITY, 0, payload=bytes(5))], PROTOCOL_ERROR),
    "the reserved bit": ([frame(HEADERS, 1, END), frame(DATA, 0x80000001)], STREAM_CLOSED),
}


@pytest.mark.parametrize("pieces", ["whole", "bytes", "sevens"])
@pytest.mark.parametrize("name", CASES)
def test_frames_are_checked_however_they_arrive(name: str, pieces: str) -> None:
    frames, expected = CASES[name]
    data = PREFACE + frame(SETTINGS, 0, payload=bytes(12)) + b"".join(frames)
    step = {"whole": len(data), "bytes": 1, "sevens": 7}[pieces]
    guard = FrameGuard()
    codes = [guard.scan(data[at : at + step]) for at in range(0, len(data), step)]
    assert [code for code in codes if code != FINE][:1] == ([expected] if expected != FINE else [])


@pytest.mark.parametrize("split", [0, 4, 15, 24])
def test_what_precedes_a_bad_frame_is_known(split: int) -> None:
    """However the pieces are cut; `split` bytes of the last frames arrive alone."""
    guard = FrameGuard()
    guard.scan(PREFACE)
    good, bad = frame(HEADERS, 1, END, b"abcdef"), frame(DATA, 1)
    data = good + bad
    if split:
        assert guard.scan(data[:split]) in (FINE, STREAM_CLOSED)
    if split < len(data):
        assert guard.scan(data[split:]) == STREAM_CLOSED
        split, left = 0, max(0, len(good) - split)
    else:
        left = len(good)
    assert guard.accepted == left


def test_frames_without_effect_are_counted() -> None:
    guard = FrameGuard()
    guard.scan(PREFACE + frame(PRIORITY, 1, payload=bytes(5)) + frame(0x42, 0) + frame(SETTINGS, 0))
    assert guard.ignored == 2
    guard.scan(frame(HEADERS, 1, END))
    assert guard.ignored == 0


def test_the_state_is_bounded() -> None:
    guard = FrameGuard()
    guard.scan(PREFACE)
    for number in range(3 * MAX_STREAMS_KEPT):
        assert guard.scan(frame(HEADERS, 2 * number + 1, END)) == FINE
    assert len(guard._open) <= MAX_STREAMS_KEPT
    assert guard.scan(frame(DATA, 1)) == FINE, "forgotten"
