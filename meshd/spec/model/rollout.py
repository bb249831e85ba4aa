"""How a new revision comes in: strategy, judgement by traffic, and commands beside it."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from meshd.spec.model.base import CountOrPercent, Duration, Model, Percent, Share, WholeNumber
from meshd.spec.reader import shorthand


class CanaryAnalysisSettings(Model):
    """Whether a new revision has to prove itself beside the old one. It is called worse at this
    `confidence`, and let on after so many `requests` of its own, or after `wait` seconds.
    `slower` times the old one's p95 is slow; in a replica's first `warm` seconds nothing is."""

    enabled: bool = True
    confidence: Annotated[Share, Field(ge=0.5, lt=1)] = 0.99
    requests: Annotated[WholeNumber, Field(ge=10)] = 200
    wait: Annotated[Duration, Field(gt=0)] = 30.0
    slower: Annotated[float, Field(ge=1)] = 1.5
    warm: Duration = 2.0

    _short = model_validator(mode="before")(shorthand.expand_gate)


class Hook(Model):
    """A command in a one-off container of the new revision, for `timeout` seconds at most."""

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    timeout: Annotated[Duration, Field(gt=0)] = 300.0

    _short = model_validator(mode="before")(shorthand.expand_hook)
    _words = field_validator("command", mode="before")(shorthand.split_command)


class RolloutSettings(Model):
    """How traffic goes over to a new revision, beside `deploy.update_config`.

    `rolling`: replica by replica. `canary`: the new revision gets the shares of the `steps`,
    each for `interval` seconds, then the rest; requests that meet all of `match` go to it from
    the beginning. `blue-green`: all new ones are brought up beside the old ones, which are
    switched off at once, and kept for `keep` seconds. `max_surge` replicas more than wanted
    may run on the way, `max_unavailable` fewer may be ready (a number, or a percentage of the
    wanted ones); without them `update_config` says.
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
    def _moves(self) -> Self:
        if self.match and self.strategy != "canary":
            raise ValueError("match is for a canary; expected strategy: canary")
        if {self.max_surge, self.max_unavailable} <= {"0", "0%"}:
            raise ValueError(
                "max_surge and max_unavailable are both 0, so nothing could ever be replaced; "
                "expected one of them above 0"
            )
        return self
