"""Whether a node is lost, by the silence of its endpoints. Pure.

`proxy.request.reachability` keeps the times and asks. An endpoint is silent if its machine left
packets of a connection unanswered, or one that opens a connection. A program that hangs or ended is
not silent: the kernel of its machine still answers. So several silent endpoints of one node mean
that the node or its network is gone.
"""

from collections.abc import Mapping
from typing import Final

MIN_SILENT: Final = 2
"""Silent endpoints that make a node lost; fewer if it has no more."""
MEMORY: Final = 3.0
"""The time for which a silence counts, as a multiple of the time that makes one."""
ANSWER_MARGIN: Final = 0.5
"""An answer of an endpoint proves that its node is there if it is not older than this share of the
time that makes a silence."""


def forget_old(silent_at: Mapping[str, float], silence: float, now: float) -> dict[str, float]:
    """Return when endpoints were found silent, without those whose silence does not count now.
    `silence`: seconds without an answer that make one."""
    return {id: at for id, at in silent_at.items() if at > now - MEMORY * silence}


def is_lost(
    silent_at: Mapping[str, float], endpoints: int, last_answer: float, silence: float, now: float
) -> bool:
    """Return whether a node is lost.

    - `silent_at`: when its endpoints were found silent, of those whose silence counts now.
    - `endpoints`: number of endpoints on it.
    - `last_answer`: when any of them answered last.
    - `silence`: seconds without an answer that make a silence.
    """
    if last_answer > now - ANSWER_MARGIN * silence:
        return False
    return endpoints > 0 and len(silent_at) >= min(MIN_SILENT, endpoints)
