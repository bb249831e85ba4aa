"""The result of one step of a policy, with everything needed to explain it. Pure.

Every policy returns a `Decision`. `meshd.scaling` applies further limits to it and records it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas should run now, and why.

    - `desired`: number of replicas.
    - `cause`: short stable code. Up: `load`, `forecast`, `headroom`, `backlog`, `wake`,
      `schedule`; down: `surplus`, `idle`, `no-gain`; otherwise `hold`, `no-data`, `strain`,
      `minimum`, `maximum`.
    - `reason`: one line for people, with the numbers in it.
    - `numbers`: the inputs and estimates that the decision is based on, by name.
    - `candidates`: number of replicas that each objective alone asks for; the largest wins.
    - `limited_by`: the limit that changed the number (`min`, `max`, `step`, `unmeasured`,
      `rollout`, `signal`), or None.
    - `warm`: number of further replicas that are worth keeping paused.
    """

    desired: int
    cause: str
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    candidates: Mapping[str, int] = field(default_factory=dict)
    limited_by: str | None = None
    warm: int = 0
