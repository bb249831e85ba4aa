"""What the policies have learned, a service: kept in memory, stored now and then, and found
again by the next control process. It goes by service, not by revision, so a new revision begins
with what its predecessor's replicas could bear and how long they took to start."""

import json
from collections.abc import Collection, Mapping
from typing import Final

import structlog

import autoscaler
from autoscaler import ScalingSettings, State
from meshd.store.store import Store

_log = structlog.stdlib.get_logger(__name__)
KEEP_EVERY: Final = 30.0


class PolicyStateStore:
    """The states by service key, beside the number that is wanted of each service."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._states: dict[str, State] = {}
        self._warm: dict[str, int] = {}
        self._kept: dict[str, float] = {}

    def state(self, key: str, settings: ScalingSettings, now: float) -> State:
        """What is known of a service; all new where nothing is."""
        found = self._states.get(key) or self._recall(key)
        return found if found is not None else autoscaler.make(settings).initial(now)

    def learn(self, key: str, state: State, warm: int | None = None) -> None:
        """What is known of it from now on, and how many replicas are worth keeping paused."""
        self._states[key] = state
        if warm is not None:
            self._warm[key] = warm

    def desired(self, key: str) -> int | None:
        """The number stored last."""
        stored = self._store.scaling.get(key)
        return stored.desired if stored is not None else None

    def keep(self, numbers: Mapping[str, int], now: float) -> bool:
        """Store the numbers wanted: those that changed, or whose pool did, at once, with what was
        learned, and each from time to time. Whether one changed."""
        changed = {
            key
            for key, number in numbers.items()
            if (number, self._pool(key)) != (self.desired(key), self._stored_pool(key))
        }
        due = {key for key in numbers if self._kept.get(key, 0.0) + KEEP_EVERY < now}
        self._write({key: numbers[key] for key in changed | due}, now)
        return bool(changed)

    def close(self, now: float) -> None:
        """Store all that was learned since."""
        desired = {key: self.desired(key) for key in self._states}
        self._write({key: number for key, number in desired.items() if number is not None}, now)

    def forget_others(self, known: Collection[str]) -> None:
        """Only these services are there."""
        for table in (self._states, self._kept, self._warm):
            for key in [k for k in table if k not in known]:
                del table[key]

    def _write(self, numbers: Mapping[str, int], now: float) -> None:
        if numbers:
            self._kept.update(dict.fromkeys(numbers, now))
            self._store.set_scaling(
                {
                    key: (number, autoscaler.dump(self._states[key]), self._pool(key))
                    for key, number in numbers.items()
                },
                now,
            )

    def _pool(self, key: str) -> int:
        return self._warm.get(key, self._stored_pool(key))

    def _stored_pool(self, key: str) -> int:
        stored = self._store.scaling.get(key)
        return stored.warm if stored is not None else 0

    def _recall(self, key: str) -> State | None:
        stored = self._store.scaling.get(key)
        if stored is None:
            return None
        try:
            return autoscaler.load(json.loads(stored.state))
        except ValueError as error:
            _log.info("the autoscaler begins anew", service=key, error=str(error))
            return None
