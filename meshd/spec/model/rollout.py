"""`x-mesh.rollout`: how traffic moves to a new revision, the canary analysis, and hooks.

Part of `meshd.spec.model.mesh`; `meshd.reconcile.rollout` carries it out.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from meshd.spec.model.base import CountOrPercent, Duration, Model, Percent, Share, WholeNumber
from meshd.spec.reader import shorthand


class CanaryAnalysisSettings(Model):
    """`gate`: the comparison of a new revision with the old one before it gets more traffic.

    - `enabled`: whether to run the analysis
    - `confidence`: the confidence at which the new revision is rejected as worse, 0.5 to below 1
    - `requests`: the new revision passes after this many of its own requests
    - `wait`: or after this many seconds
    - `slower`: a response is slow if it takes this many times the old revision's p95
    - `warm`: seconds after a replica's start in which its responses do not count as slow
    """

    enabled: bool = True
    confidence: Annotated[Share, Field(ge=0.5, lt=1)] = 0.99
    requests: Annotated[WholeNumber, Field(ge=10)] = 200
    wait: Annotated[Duration, Field(gt=0)] = 30.0
    slower: Annotated[float, Field(ge=1)] = 1.5
    warm: Duration = 2.0

    _short = model_validator(mode="before")(shorthand.expand_gate)


class Hook(Model):
    """A command run in a one-off container of the new revision.

    - `command`: the command, as words or as one line
    - `timeout`: seconds after which it is ended and has failed
    """

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    timeout: Annotated[Duration, Field(gt=0)] = 300.0

    _short = model_validator(mode="before")(shorthand.expand_hook)
    _words = field_validator("command", mode="before")(shorthand.split_command)


class RolloutSettings(Model):
    """How traffic moves to a new revision, in addition to `deploy.update_config`.

    - `strategy`: `rolling` replaces replica by replica; `canary` shifts traffic in `steps`;
      `blue-green` starts all new replicas, then switches all traffic at once
    - `steps`: the new revision's shares of the traffic in a canary, in increasing order
    - `interval`: seconds that each step lasts at least
    - `match`: in a canary, requests that meet all conditions go to the new revision from the start
    - `keep`: seconds that blue-green keeps the old replicas after the switch
    - `max_surge`: extra replicas allowed during a rollout, as a number or a percentage of the
      desired replicas. Default: from `update_config`
    - `max_unavailable`: replicas that may be missing during a rollout, in the same form
    - `gate`: the canary analysis
    - `before`, `after`, `on_failure`: commands run before the first new replica, after the last
      one, and after a failed rollout
    """

    strategy: Literal["rolling", "canary", "blue-green"] = "rolling"
    steps: tuple[Percent, ...] = (0.05, 0.25, 0.5)
    interval: Duration = 30.0
    match: tuple[str, ...] = ()
    keep: Duration = 300.0
    max_surge: CountOrPercent = ""
    max_unavailable: CountOrPercent = ""
    gate: CanaryAnalysisSettings = CanaryAnalysisSettings()
    before: Hook | None = None
    after: Hook | None = None
    on_failure: Hook | None = None

    _many_steps = field_validator("steps", mode="before")(shorthand.wrap_in_list)
    _many = field_validator("match", mode="before")(shorthand.wrap_in_list)
    _match = field_validator("match")(shorthand.check_match)
    _steps = field_validator("steps")(shorthand.check_steps)

    @model_validator(mode="after")
    def _check_strategy(self) -> Self:
        if self.match and self.strategy != "canary":
            raise ValueError("match requires a canary; expected strategy: canary")
        if {self.max_surge, self.max_unavailable} <= {"0", "0%"}:
            raise ValueError(
                "max_surge and max_unavailable are both 0, so no replica could be replaced; "
                "expected one of them above 0"
            )
        return self
