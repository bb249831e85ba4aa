"""Requests in virtual time, shared between revisions by the published snapshot's split.

The environment of a revision's service says how it answers: `ERRORS` is the share of requests that
fail, `MS` the latency in milliseconds.
"""

from collections.abc import Callable

from meshd.spec.model import Service
from meshd.telemetry.ingest import Window
from meshd.telemetry.merge import MergedService
from proxy.wire.snapshot import Endpoint, Snapshot, Split
from tests.fakes.virtual import clock

RATE = 200
HISTORY = 60


class SimTraffic:
    """`rate` requests per second to each service; call `run_second` once per second."""

    def __init__(
        self,
        held: Callable[[], Snapshot | None],
        spec: Callable[[str, str], Service | None],
        rate: int = RATE,
    ) -> None:
        self.rate = rate
        self.failed: dict[str, float] = {}
        self.served: dict[str, float] = {}
        self._held = held
        self._spec = spec
        self._past: dict[str, list[MergedService]] = {}
        self._carried: dict[tuple[str, str], float] = {}

    def run_second(self) -> None:
        """Simulate the requests of one second."""
        snapshot = self._held()
        for service in snapshot.services if snapshot else ():
            ready = [e for e in service.endpoints if e.state == "ready"]
            second = MergedService(start=float(int(clock()) - 1), interval=1.0)
            for revision, share in shares(ready, service.split).items():
                self._serve(second, service.name, revision, share, ready)
            past = self._past.setdefault(service.name, [])
            past.append(second)
            del past[:-HISTORY]

    def _serve(
        self, second: MergedService, key: str, revision: str, share: float, ready: list[Endpoint]
    ) -> None:
        count = self._round((key, revision + "n"), self.rate * share)
        spec = self._spec(key, revision)
        environment = spec.environment if spec else {}
        failed = self._round((key, revision + "f"), count * float(environment.get("ERRORS", "0")))
        self.served[revision] = self.served.get(revision, 0) + count
        self.failed[revision] = self.failed.get(revision, 0) + failed
        second.arrivals += count
        second.codes["GET 2xx"] = second.codes.get("GET 2xx", 0) + count - failed
        own = [e for e in ready if e.revision == revision]
        for number in range(count):
            endpoint = second.endpoint(own[number % len(own)].id)
            endpoint.revision = revision
            endpoint.latency.observe(
                float(environment.get("MS", "20")) / 1000 * (1 + number % 7 / 10)
            )
            if number < failed:
                endpoint.failed += 1
            else:
                endpoint.succeeded += 1

    def _round(self, key: tuple[str, str], number: float) -> int:
        """Return `number` as a whole number; fractions are carried over, so that sums are right."""
        total = self._carried.get(key, 0.0) + number
        self._carried[key] = total - int(total)
        return int(total)

    def window(self, service: str, seconds: int, now: float) -> Window:
        """See `meshd.reconcile.rollout.analysis_feed.TrafficSource`."""
        merged = MergedService()
        for second in self._past.get(service, [])[-seconds:]:
            merged.start = merged.start or second.start
            merged.add(second)
        return Window(merged)


def shares(ready: list[Endpoint], split: Split | None) -> dict[str, float]:
    """Return the share of requests of each revision."""
    counts: dict[str, int] = {}
    for endpoint in ready:
        counts[endpoint.revision] = counts.get(endpoint.revision, 0) + 1
    if split is not None:
        weighted = {r: w for r, w in split.weights if r in counts and w > 0.0}
        if weighted:
            total = sum(weighted.values())
            return {revision: weight / total for revision, weight in weighted.items()}
    return {revision: count / len(ready) for revision, count in counts.items()}
