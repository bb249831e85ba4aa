"""Prefer endpoints on the proxy's own node, as long as they are not slower than the others. Pure.

`proxy.policy.balance.make_picker` puts it around the picker of a service with endpoints on the own
node and on others. A share of the requests stays on the node; the others are balanced over all
endpoints, as without a preference. The share follows the latencies that this proxy sees:

- It grows while requests are answered on the node as fast as elsewhere.
- It shrinks as soon as they are answered later, down to nothing.

A proxy knows its own requests only. In flight, the endpoints of other nodes look idle to it while
their own nodes keep them busy, so that numbers in flight do not say where there is room; waiting
times do. With load that is spread evenly nearly all requests stay local. A node with more clients
than its endpoints can serve sends to others as much as makes both equally fast, which is the load
that balancing without a preference would give them. Envoy computes the share from the numbers of
hosts in each zone, which assumes that clients are spread like them.
"""

from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.policy.balance import Candidate, Picker

LARGEST_SHARE: Final = 0.95
"""Share of the requests that stay local, at most: the others keep the latencies elsewhere known."""
FIRST_SHARE: Final = 0.5
"""Share before anything is known."""
ADJUST_SECONDS: Final = 0.1
"""Seconds between two adjustments, at least: an answer must show the effect of the last one."""
ADJUST_PICKS: Final = 16
"""Picks between two adjustments, at least: fewer answers say little."""
GROWTH: Final = 0.02
"""Added to the share in an adjustment: from none to all in five seconds."""
SHRINKING: Final = 0.7
"""Factor of the share in an adjustment, at least: half of the requests leave within 0.2 s."""
TOLERANCE: Final = 1.1
"""Local endpoints up to this many times as slow as the others count as equally fast: noise."""
MARGIN: Final = 0.0005
"""Seconds added to that bound: a round trip between two nodes of a data center."""


class LocalFirst:
    """A picker that prefers the candidates on a node (its name in lower case). `make` makes the
    pickers that choose among those of the node, and among all."""

    def __init__(self, make: "Callable[[], Picker]", node: str) -> None:
        self._node = node
        self._local_picker = make()
        self._picker = make()
        self._candidates: Sequence[Candidate] = ()
        self._local: tuple[Candidate, ...] = ()
        self._indexes: tuple[int, ...] = ()
        self._others: tuple[Candidate, ...] = ()
        self._share = FIRST_SHARE
        self._picks = 0
        self._adjusted_at = 0.0

    @property
    def share(self) -> float:
        """The share of the requests that stay local."""
        return self._share

    def pick(
        self,
        candidates: Sequence["Candidate"],
        key: int | None,
        dice: Callable[[], float],
        now: float,
    ) -> int:
        """See `proxy.policy.balance.Picker`."""
        if candidates is not self._candidates:
            self._split(candidates)
        self._picks += 1
        if self._picks >= ADJUST_PICKS and now - self._adjusted_at >= ADJUST_SECONDS:
            self._adjust(now)
        if self._indexes and dice() < self._share:
            return self._indexes[self._local_picker.pick(self._local, key, dice, now)]
        return self._picker.pick(candidates, key, dice, now)

    def _split(self, candidates: Sequence["Candidate"]) -> None:
        self._candidates = candidates
        pairs = [(i, c) for i, c in enumerate(candidates) if c.node.lower() == self._node]
        self._indexes = tuple([index for index, _ in pairs])
        self._local = tuple([candidate for _, candidate in pairs])
        self._others = tuple([c for c in candidates if c.node.lower() != self._node])

    def _adjust(self, now: float) -> None:
        self._picks, self._adjusted_at = 0, now
        here = [c.latency for c in self._local if c.latency > 0.0]
        elsewhere = [c.latency for c in self._others if c.latency > 0.0]
        if here and elsewhere:
            self._share = adjust_share(self._share, median(here), median(elsewhere))


def adjust_share(share: float, here: float, elsewhere: float) -> float:
    """Return the next share of the requests that stay local, by the latencies of local endpoints
    and of the others in seconds."""
    if here <= elsewhere * TOLERANCE + MARGIN:
        return min(LARGEST_SHARE, share + GROWTH)
    return share * max(SHRINKING, elsewhere / here)
