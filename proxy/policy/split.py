"""Traffic split: which revision of a service gets a request while two of them share it. Pure.

Owned by `proxy.state.service_state`, built from the snapshot.
"""

from typing import Final

from proxy.policy.balance import pick_weighted
from proxy.policy.route import HeaderGetter, is_met
from proxy.wire.snapshot import Split


class Splitter:
    """A split, ready for use. `open` holds the revisions with a positive weight."""

    def __init__(self, split: Split) -> None:
        self._split: Final = split
        self._revisions = [revision for revision, _ in split.weights]
        self._weights = [weight for _, weight in split.weights]
        self.open = frozenset(revision for revision, weight in split.weights if weight > 0.0)

    def choose(self, headers: HeaderGetter, roll: float) -> str:
        """Return the revision for a request: by its headers, else by weight.

        `roll` is a random number in [0, 1).
        """
        split = self._split
        if split.matches and all(is_met(match, headers) for match in split.matches):
            return split.matched
        if len(self._revisions) == 1:
            return self._revisions[0]
        return self._revisions[pick_weighted(self._weights, roll)]
