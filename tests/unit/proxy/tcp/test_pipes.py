"""The pool of kernel pipes keeps few of them, and limits what slow readers occupy."""

import os

import pytest

from proxy.tcp import pipes
from proxy.tcp.pipes import LARGE, MAX_IDLE, Pipe, PipePool


def is_open(pipe: Pipe) -> bool:
    try:
        os.fstat(pipe.read_end)
    except OSError:
        return False
    return True


def take(pool: PipePool) -> Pipe:
    pipe = pool.take()
    assert pipe is not None
    return pipe


def test_an_empty_pipe_is_used_again() -> None:
    pool = PipePool()
    first = take(pool)
    assert pool.taken == 1
    pool.give(first)
    assert take(pool) is first
    pool.discard(first)
    assert not is_open(first)
    assert pool.taken == 0


def test_few_idle_pipes_are_kept() -> None:
    pool = PipePool()
    taken = [take(pool) for _ in range(MAX_IDLE + 3)]
    for pipe in taken:
        pool.give(pipe)
    assert sum(map(is_open, taken)) == MAX_IDLE
    pool.close()
    assert not any(map(is_open, taken))


def test_the_number_of_pipes_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "MAX_PIPES", 3)
    monkeypatch.setattr(pipes, "MAX_LARGE", 1)
    pool = PipePool()
    taken = [take(pool) for _ in range(3)]
    assert pool.take() is None
    assert [pipe.size >= LARGE for pipe in taken] == [True, False, False]
    pool.discard(taken[0])
    assert take(pool).size >= LARGE, "another one may be large now"
    for pipe in taken[1:]:
        pool.discard(pipe)


def test_without_a_descriptor_there_is_no_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(flags: int) -> tuple[int, int]:
        raise OSError(flags)

    monkeypatch.setattr(os, "pipe2", fail)
    pool = PipePool()
    assert pool.take() is None
    assert pool.taken == 0
