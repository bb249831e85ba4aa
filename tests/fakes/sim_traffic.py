"""Requests in virtual time: as the split of the published snapshot has it, each revision failing
and answering as its service's environment says (`ERRORS`, a share; `MS`)."""

from collections.abc import Callable

from meshd.spec.model import Service
from meshd.telemetry.ingest import Window
from meshd.telemetry.merge import MergedService
from proxy.wire.snapshot import Endpoint, Snapshot, Split
from tests.fakes.virtual import clock

RATE = 200
HISTORY = 60


class SimTraffic:
    """`rate` requests a second to each service; call `run_second` once a second."""

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
        self._owed: dict[tuple[str, str], float] = {}

    def run_second(self) -> None:
        """One more second is over."""
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
        count = self._whole((key, revision + "n"), self.rate * share)
        spec = self._spec(key, revision)
        words = spec.environment if spec else {}
        failed = self._whole((key, revision + "f"), count * float(words.get("ERRORS", "0")))
        self.served[revision] = self.served.get(revision, 0) + count
        self.failed[revision] = self.failed.get(revision, 0) + failed
        second.arrivals += count
        second.codes["GET 2xx"] = second.codes.get("GET 2xx", 0) + count - failed
        mine = [e for e in ready if e.revision == revision]
        for number in range(count):
            endpoint = second.endpoint(mine[number % len(mine)].id)
            endpoint.revision = revision
            endpoint.latency.observe(float(words.get("MS", "20")) / 1000 * (1 + number % 7 / 10))
            if number < failed:
                endpoint.failed += 1
            else:
                endpoint.succeeded += 1

    def _whole(self, what: tuple[str, str], number: float) -> int:
        """As whole numbers that add up."""
        owed = self._owed.get(what, 0.0) + number
        self._owed[what] = owed - int(owed)
        return int(owed)

    def window(self, service: str, seconds: int, now: float) -> Window:
        """See `meshd.reconcile.rollout.steps.analysis_feed.TrafficSource`."""
        merged = MergedService()
        for second in self._past.get(service, [])[-seconds:]:
            merged.start = merged.start or second.start
            merged.add(second)
        return Window(merged)


def shares(ready: list[Endpoint], split: Split | None) -> dict[str, float]:
    """Revision → its part of the requests."""
    counts: dict[str, int] = {}
    for endpoint in ready:
        counts[endpoint.revision] = counts.get(endpoint.revision, 0) + 1
    if split is not None:
        given = {r: w for r, w in split.weights if r in counts and w > 0.0}
        if given:
            whole = sum(given.values())
            return {revision: weight / whole for revision, weight in given.items()}
    return {revision: count / len(ready) for revision, count in counts.items()}
