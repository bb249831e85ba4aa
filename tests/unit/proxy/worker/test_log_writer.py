"""The access log on its way out."""

import asyncio
import os
from pathlib import Path

import pytest

from proxy.observe.access_log import BATCH_SIZE, MAX_PENDING, AccessLog, Entry
from proxy.worker.log_writer import LogWriter, split_lines
from tests.support.waiting import wait_until

ENTRY = Entry(
    time=0.0, client="127.0.0.1", method="GET", target="/", version="HTTP/1.1", status=200
)


@pytest.mark.parametrize(
    ("batch", "size", "pieces"),
    [
        (b"", 4, []),
        (b"a\nb\n", 4, [b"a\nb\n"]),
        (b"a\nbb\nc\n", 4, [b"a\n", b"bb\n", b"c\n"]),
        (b"abcdef\nc\n", 4, [b"abcdef\n", b"c\n"]),
        (b"a\nabcdef\nc\n", 4, [b"a\n", b"abcdef\n", b"c\n"]),
    ],
)
def test_lines_stay_whole(batch: bytes, size: int, pieces: list[bytes]) -> None:
    assert list(split_lines(batch, size)) == pieces


async def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("before\n")
    ready = asyncio.Event()
    log = AccessLog("combined", on_batch=ready.set)
    writer = LogWriter(log, str(path), ready)
    writer.open()
    log.add(ENTRY)
    log.add(ENTRY)
    await writer.flush()
    await writer.flush()
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    assert lines[1] == lines[2]
    assert "GET / HTTP/1.1" in lines[1]


async def test_many_lines_are_written_before_any_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    ready = asyncio.Event()
    log = AccessLog("combined", on_batch=ready.set)
    writer = LogWriter(log, str(path), ready)
    writer.open()
    writing = asyncio.create_task(writer.run())
    await asyncio.sleep(0)
    count = 3 * MAX_PENDING // 50
    for number in range(count):
        log.add(ENTRY)
        if not number % 1000:
            await wait_until(lambda: log.pending_bytes < BATCH_SIZE, what="a batch is written")
    writer.close()
    await writing
    assert not log.dropped
    assert path.stat().st_size > 2 * MAX_PENDING
    assert path.read_bytes().count(b"\n") == count


async def test_lines_added_during_a_write_are_written_at_the_end(
    tmp_path: Path,
) -> None:
    path = tmp_path / "access.log"
    ready = asyncio.Event()
    log = AccessLog("combined", on_batch=ready.set)
    writer = LogWriter(log, str(path), ready)
    writer.open()
    writing = asyncio.create_task(writer.run())
    await asyncio.sleep(0)
    for _ in range(BATCH_SIZE // 50):
        log.add(ENTRY)
    while log.pending_bytes:
        await asyncio.sleep(0)
    log.add(ENTRY)
    writer.close()
    await writing
    assert path.read_bytes().count(b"\n") == BATCH_SIZE // 50 + 1


async def test_a_pipe_without_a_reader_blocks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    ready = asyncio.Event()
    log = AccessLog("combined", limit=500_000, on_batch=ready.set)
    writer = LogWriter(log, str(path), ready)
    writer.open()
    for _ in range(20_000):
        log.add(ENTRY)
    assert log.dropped > 0
    flushing = asyncio.create_task(writer.flush())
    await asyncio.sleep(0)
    log.add(ENTRY)
    assert not flushing.done()
    got = b""
    while not flushing.done():
        await asyncio.sleep(0)
        try:
            got += os.read(reading, 65536)
        except BlockingIOError:
            continue
    await flushing
    while got.count(b"\n") < 20_000 - log.dropped:
        got += os.read(reading, 65536)
    os.close(reading)
    assert set(got.splitlines()) == {got.splitlines()[0]}


async def test_a_renamed_file_is_opened_again_without_losing_a_line(tmp_path: Path) -> None:
    path, ready = tmp_path / "log" / "access.log", asyncio.Event()
    log = AccessLog("combined", on_batch=ready.set)
    writer = LogWriter(log, str(path), ready)
    writer.open()
    writing = asyncio.create_task(writer.run())
    log.add(ENTRY)  # lost: there is no such directory yet
    await writer.flush()
    path.parent.mkdir()
    writer.reopen()
    await wait_until(path.exists, 5, "opened")
    for number in range(1, 6):
        log.add(ENTRY)
        path.rename(path.with_suffix(f".{number}"))
        log.add(ENTRY)
        writer.reopen()
        await wait_until(path.exists, 5, "opened again")
    path.parent.chmod(0o500)
    writer.close()
    await writing
    files = sorted(path.parent.iterdir())
    assert len(files) == 6
    assert [file.read_bytes().count(b"\n") for file in files] == [2, 2, 2, 2, 2, 0]
