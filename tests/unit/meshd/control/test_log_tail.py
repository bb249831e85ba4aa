"""Output of replicas is followed although the runtime fails now and then."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from meshd.control import log_tail
from meshd.control.log_tail import LogTail
from meshd.model.replica_phase import Phase
from meshd.runtime.base import ReplicaNotFound, RuntimeFailure, RuntimeUnavailable


class FailingRuntime:
    """Ends the stream of `web-1` by each of `failures`, then sends a line. `web-2` is gone."""

    def __init__(self, *failures: RuntimeFailure) -> None:
        self.failures = list(failures)
        self.asked: list[str] = []

    async def follow(self, name: str) -> AsyncIterator[str]:
        self.asked.append(name)
        if name == "web-2":
            raise ReplicaNotFound(name)
        if self.failures:
            yield f"line before {len(self.failures)}"
            raise self.failures.pop(0)
        yield "last line"


async def test_output_is_followed_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_tail, "RETRY_FIRST", 0.001)
    runtime: Any = FailingRuntime(RuntimeUnavailable("cut"), RuntimeFailure("broken"))
    replicas = [
        SimpleNamespace(name=name, listed=True, phase=Phase.READY) for name in ("web-1", "web-2")
    ]
    lookup: Any = SimpleNamespace(service=lambda *_: None, replicas=lambda *_: replicas)
    archive: Any = None
    found = []
    async with aclosing(LogTail(runtime, lookup, archive).follow("shop", "web")) as lines:  # type: ignore[type-var]
        async for line in lines:
            found.append(line)
            if len(found) == 3:
                break
    texts = ["line before 2", "line before 1", "last line"]
    assert found == [("web-1", text) for text in texts]
    assert runtime.asked.count("web-2") == 1
