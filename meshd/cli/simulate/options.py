"""Parameter types of `meshd simulate`: ranges of durations, warm replicas, lists of policies."""

from typing import Any, Literal

import click

from meshd.cli.simulate import runner
from meshd.spec import units


class DurationRange(click.ParamType[tuple[float, float]]):
    """Seconds from and to: `5s-15s`, or one duration for both."""

    name = "time-time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        first, _, second = str(value).partition("-")
        try:
            low, high = units.parse_duration(first), units.parse_duration(second or first)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if low > high:
            self.fail(
                f"{value!r}: the first duration must not be longer than the second", param, ctx
            )
        return low, high


class WarmReplicas(click.ParamType[int | Literal["auto"]]):
    """A number of paused replicas, or `auto`."""

    name = "n or auto"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Literal["auto"]:
        if value == "auto":
            return "auto"
        if not (str(value).isascii() and str(value).isdigit()):
            self.fail(f"{value!r}: expected a number of replicas, or auto", param, ctx)
        return int(value)


class PolicyNames(click.ParamType[tuple[str, ...]]):
    """A comma-separated list of policies."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = [name.strip() for name in str(value).split(",") if name.strip()]
        unknown = [name for name in names if name not in runner.POLICIES]
        if unknown or not names:
            known = ", ".join(runner.POLICIES)
            self.fail(
                f"no policy {', '.join(unknown) or value!r}; known policies: {known}", param, ctx
            )
        return tuple(dict.fromkeys(names))
