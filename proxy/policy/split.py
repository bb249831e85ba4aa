"""Which revision of a service a request goes to, while two of them share its requests."""

from typing import Final

from proxy.policy.balance import pick_weighted
from proxy.policy.route import HeaderGetter, is_met
from proxy.wire.snapshot import Split


class Splitter:
    """A split, ready for use. `open` are the revisions that get a share."""

    def __init__(self, split: Split) -> None:
        self._split: Final = split
        self._revisions = [revision for revision, _ in split.weights]
        self._weights = [weight for _, weight in split.weights]
        self.open = frozenset(revision for revision, weight in split.weights if weight > 0.0)

    def choose(self, headers: HeaderGetter, roll: float) -> str:
        """The revision of one request: by what it carries, else by weight; `roll` is in [0, 1)."""
        split = self._split
        if split.matches and all(is_met(match, headers) for match in split.matches):
            return split.matched
        if len(self._revisions) == 1:
            return self._revisions[0]
        return self._revisions[pick_weighted(self._weights, roll)]
