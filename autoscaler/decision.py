"""What was decided, and everything needed to explain it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Decision:
    """The number of replicas wanted now, and why.

    - `cause`: short stable code. Up: `load`, `forecast`, `headroom`, `backlog`, `wake`,
      `schedule`; down: `surplus`, `idle`, `no-gain`; otherwise `hold`, `no-data`, `strain`,
      `minimum`, `maximum`.
    - `reason`: one line for people, with the numbers in it.
    - `numbers`: what it was decided from, by name.
    - `candidates`: what each objective alone would want; the largest wins.
    - `limited_by`: the limit that changed the number (`min`, `max`, `step`, `rollout`), or None.
    - `warm`: replicas more that are worth keeping paused, ready to be woken.
    """

    desired: int
    cause: str
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    candidates: Mapping[str, int] = field(default_factory=dict)
    limited_by: str | None = None
    warm: int = 0
