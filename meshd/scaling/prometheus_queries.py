"""External signals: Prometheus queries, asked every few seconds in the background.

`meshd.scaling.controller` names the queries and reads their last values; the daemon runs `run`.
"""

import asyncio
import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import aiohttp
import structlog

from meshd.spec.model import PrometheusQuery

_log = structlog.stdlib.get_logger(__name__)
INTERVAL: Final = 5.0
"""Seconds between two queries: Prometheus usually scrapes every 5 to 15 s."""
MAX_AGE: Final = 30.0
"""Seconds for which a value counts: six failed queries. After that the signal is unknown."""
MAX_CONCURRENT: Final = 8
"""Queries sent at the same time, over all services."""
MAX_ANSWER: Final = 1 << 20
"""Bytes of the largest answer that is read: a query that gives more is a mistake."""
_TIMEOUT: Final = aiohttp.ClientTimeout(total=4.0)
"""Seconds for one query: less than the interval."""


class NoValue(Exception):
    """The answer contains no number; the text says why."""


def value_of(answer: Mapping[str, Any]) -> float:
    """Return the sum over the result of an instant query. Pure. Raises NoValue."""
    if answer.get("status") != "success":
        raise NoValue(str(answer.get("error") or "the answer is not from Prometheus"))
    data: Mapping[str, Any] = answer.get("data") or {}
    result: Any = data.get("result")
    try:
        if data.get("resultType") == "scalar":
            values = [float(result[1])]
        elif data.get("resultType") == "vector":
            values = [float(series["value"][1]) for series in result]
        else:
            raise NoValue(
                f"the query returns a {data.get('resultType')}; expected a scalar or a vector"
            )
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise NoValue("the answer is not from Prometheus") from error
    total = math.fsum(values)
    if not values or not math.isfinite(total):
        raise NoValue("the query returns nothing" if not values else f"the query returns {total}")
    return total


async def _read_answer(answer: aiohttp.ClientResponse) -> bytes:
    """Return the body. Raises NoValue as soon as it is larger than `MAX_ANSWER`."""
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER:
            raise NoValue(f"the answer is larger than {MAX_ANSWER >> 20} MiB")
    return bytes(body)


class PrometheusQueries:
    """Keeps the last value of every query while `run` runs. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._queries: frozenset[PrometheusQuery] = frozenset()
        self._values: dict[PrometheusQuery, tuple[float, float]] = {}
        self._problems: dict[PrometheusQuery, str | None] = {}
        self._changed = asyncio.Event()

    def set_queries(self, queries: Collection[PrometheusQuery]) -> None:
        """Run exactly these queries from now on, new ones at once."""
        new = frozenset(queries)
        if new != self._queries:
            self._queries = new
            for table in (self._values, self._problems):
                for query in [query for query in table if query not in new]:
                    del table[query]
            self._changed.set()

    def value(self, query: PrometheusQuery) -> float | None:
        """Return the last value; None if there is none of the last `MAX_AGE` seconds."""
        known = self._values.get(query)
        return known[0] if known and self._clock() - known[1] <= MAX_AGE else None

    async def run(self) -> None:
        """Run all queries periodically until cancelled."""
        slots = asyncio.Semaphore(MAX_CONCURRENT)
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            while True:
                self._changed.clear()
                await asyncio.gather(*(self._run_query(session, slots, q) for q in self._queries))
                try:
                    async with asyncio.timeout(INTERVAL):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    async def _run_query(
        self, session: aiohttp.ClientSession, slots: asyncio.Semaphore, query: PrometheusQuery
    ) -> None:
        problem: str | None = None
        async with slots:
            try:
                url = f"{query.url}/api/v1/query"
                async with session.get(url, params={"query": query.query}) as answer:
                    value = value_of(json.loads(await _read_answer(answer)))
                self._values[query] = value, self._clock()
            except (aiohttp.ClientError, OSError, ValueError, AttributeError) as error:
                problem = str(error) or type(error).__name__
            except NoValue as error:
                problem = str(error)
        if problem != self._problems.get(query):
            self._problems[query] = problem
            if problem:
                _log.warning(
                    "no value for a Prometheus query",
                    url=query.url,
                    query=query.query,
                    reason=problem,
                )
