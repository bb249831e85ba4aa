"""External signals: Prometheus queries, asked every few seconds beside everything else."""

import asyncio
import math
import time
from collections.abc import Collection, Mapping
from typing import Any, Final

import aiohttp
import structlog

from meshd.spec.model import PrometheusQuery

_log = structlog.stdlib.get_logger(__name__)
PAUSE: Final = 5.0
FRESH: Final = 30.0
"""Seconds for which a value counts; after that nothing is known, and the number is held."""
AT_ONCE: Final = 8
LARGEST: Final = 1 << 20
_TIMEOUT: Final = aiohttp.ClientTimeout(total=4.0)


class NoValue(Exception):
    """The answer holds no number; the text says why."""


def value_of(answer: Mapping[str, Any]) -> float:
    """The sum over what an instant query gave. Pure. Raises NoValue."""
    if answer.get("status") != "success":
        raise NoValue(str(answer.get("error") or "the answer is not one of Prometheus"))
    data: Mapping[str, Any] = answer.get("data") or {}
    result: Any = data.get("result")
    try:
        if data.get("resultType") == "scalar":
            values = [float(result[1])]
        elif data.get("resultType") == "vector":
            values = [float(series["value"][1]) for series in result]
        else:
            raise NoValue(f"a query of type {data.get('resultType')} is no number")
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise NoValue("the answer is not one of Prometheus") from error
    total = math.fsum(values)
    if not values or not math.isfinite(total):
        raise NoValue("the query gives nothing" if not values else f"the query gives {total}")
    return total


class PrometheusQueries:
    """Keeps the last value of every query that is wanted, while `run` runs."""

    def __init__(self) -> None:
        self._wanted: frozenset[PrometheusQuery] = frozenset()
        self._values: dict[PrometheusQuery, tuple[float, float]] = {}
        self._problems: dict[PrometheusQuery, str] = {}
        self._changed = asyncio.Event()

    def want(self, queries: Collection[PrometheusQuery]) -> None:
        """Ask these from now on, new ones soon."""
        wanted = frozenset(queries)
        if wanted != self._wanted:
            self._wanted = wanted
            for table in (self._values, self._problems):
                for query in [query for query in table if query not in wanted]:
                    del table[query]
            self._changed.set()

    def value(self, query: PrometheusQuery, now: float) -> float | None:
        """The last value (`now` is monotonic); None when none is fresh."""
        known = self._values.get(query)
        return known[0] if known and now - known[1] <= FRESH else None

    async def run(self) -> None:
        """Ask again and again until cancelled."""
        gate = asyncio.Semaphore(AT_ONCE)
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            while True:
                self._changed.clear()
                await asyncio.gather(*(self._ask(session, gate, q) for q in self._wanted))
                try:
                    async with asyncio.timeout(PAUSE):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    async def _ask(
        self, session: aiohttp.ClientSession, gate: asyncio.Semaphore, query: PrometheusQuery
    ) -> None:
        problem = ""
        async with gate:
            try:
                url = f"{query.url}/api/v1/query"
                async with session.get(url, params={"query": query.query}) as answer:
                    if (answer.content_length or 0) > LARGEST:
                        raise NoValue("the answer is larger than 1 MiB")
                    value = value_of(await answer.json(content_type=None))
                self._values[query] = value, time.monotonic()
            except (aiohttp.ClientError, OSError, ValueError, AttributeError) as error:
                problem = str(error) or type(error).__name__
            except NoValue as error:
                problem = str(error)
        if problem != self._problems.get(query, ""):
            self._problems[query] = problem
            if problem:
                _log.warning("no external signal", url=query.url, query=query.query, why=problem)
