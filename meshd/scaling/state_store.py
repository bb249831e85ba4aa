"""The learned state of each service's policy, in memory and in the store.

`meshd.scaling.controller` owns it. State is stored now and then and read again after a restart. It
belongs to a service, not to a revision: a new revision starts with what the replicas before it
could serve and how long they took to start.
"""

import json
from collections.abc import Collection, Mapping
from typing import Final

import msgspec
import structlog

import autoscaler
from autoscaler import ScalingSettings, State
from meshd.store.store import Store

_log = structlog.stdlib.get_logger(__name__)
STORE_INTERVAL: Final = 30.0
"""Seconds between two writes of an unchanged number: what a killed process forgets at most."""


class PolicyStateStore:
    """The states by service key, with the desired number of replicas of each service."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._states: dict[str, State] = {}
        self._warm: dict[str, int] = {}
        self._stored_at: dict[str, float] = {}

    def state(self, key: str, settings: ScalingSettings, now: float) -> State:
        """Return the state of a service; an initial one if none is known."""
        found = self._states.get(key) or self._load(key, now)
        return found if found is not None else autoscaler.make(settings).initial(now)

    def set_state(self, key: str, state: State, warm: int | None = None) -> None:
        """Replace the state of a service in memory, and the size of its warm pool if given."""
        self._states[key] = state
        if warm is not None:
            self._warm[key] = warm

    def desired(self, key: str) -> int | None:
        """Return the number stored last; None if there is none."""
        stored = self._store.scaling.get(key)
        return stored.desired if stored is not None else None

    def save(self, numbers: Mapping[str, int], now: float) -> bool:
        """Store the desired numbers with the states: changed ones (number or warm pool) at once,
        the others from time to time. Return whether any changed."""
        changed = {
            key
            for key, number in numbers.items()
            if (number, self._pool_size(key)) != (self.desired(key), self._stored_pool_size(key))
        }
        due = {key for key in numbers if self._stored_at.get(key, 0.0) + STORE_INTERVAL < now}
        self._write({key: numbers[key] for key in changed | due}, now)
        return bool(changed)

    def revert(self, keys: Collection[str]) -> None:
        """Return to the stored numbers, because new ones could not be stored: the policy then
        decides from what holds, and not from an order that was never given."""
        for key in keys:
            stored = self.desired(key)
            if stored is not None and key in self._states:
                self._states[key] = msgspec.structs.replace(self._states[key], desired=stored)

    def close(self, now: float) -> None:
        """Store every state."""
        desired = {key: self.desired(key) for key in self._states}
        self._write({key: number for key, number in desired.items() if number is not None}, now)

    def forget_others(self, services: Collection[str]) -> None:
        """Forget all services but these."""
        for table in (self._states, self._stored_at, self._warm):
            for key in [k for k in table if k not in services]:
                del table[key]

    def _write(self, numbers: Mapping[str, int], now: float) -> None:
        if numbers:
            self._stored_at.update(dict.fromkeys(numbers, now))
            self._store.set_scaling(
                {
                    key: (number, autoscaler.dump(self._states[key]), self._pool_size(key))
                    for key, number in numbers.items()
                },
                now,
            )

    def _pool_size(self, key: str) -> int:
        return self._warm.get(key, self._stored_pool_size(key))

    def _stored_pool_size(self, key: str) -> int:
        stored = self._store.scaling.get(key)
        return stored.warm if stored is not None else 0

    def _load(self, key: str, now: float) -> State | None:
        stored = self._store.scaling.get(key)
        if stored is None:
            return None
        try:
            return autoscaler.forget_future(autoscaler.load(json.loads(stored.state)), now)
        except ValueError as error:
            _log.info("stored autoscaler state ignored", service=key, error=str(error))
            return None
