"""Rollouts for tests of plans and states."""

from typing import Any

from meshd.model.rollout import Rollout, RolloutState


def rollout(
    state: RolloutState = RolloutState.ROLLING, previous: str = "old", **fields: Any
) -> Rollout:
    """A rollout from revision `previous` to revision `new`."""
    fields = {"revision": "new", "previous": previous, "state": state, "since": 0.0, **fields}
    return Rollout(**fields)
