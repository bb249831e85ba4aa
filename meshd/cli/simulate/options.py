"""What the options of `meshd simulate` may say: times, spans, numbers and names of policies."""

from typing import Any, Literal

import click

from meshd.cli.simulate import runner
from meshd.spec import units


class Duration(click.ParamType[float]):
    """`100ms`, `5s`."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return units.parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class SpanType(click.ParamType[tuple[float, float]]):
    """`5s-15s`, or one duration for both ends."""

    name = "time-time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        first, _, second = str(value).partition("-")
        try:
            low, high = units.parse_duration(first), units.parse_duration(second or first)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if low > high:
            self.fail(f"{value!r}: the first must not be the larger", param, ctx)
        return low, high


class Warm(click.ParamType[int | Literal["auto"]]):
    """A number of paused replicas, or `auto`."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value != "auto" and not (str(value).isascii() and str(value).isdigit()):
            self.fail(f"{value!r}: expected a number of replicas, or auto", param, ctx)
        return value if value == "auto" else int(value)


class Policies(click.ParamType[tuple[str, ...]]):
    """A comma-separated choice of policies."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        names = [name.strip() for name in str(value).split(",") if name.strip()]
        unknown = [name for name in names if name not in runner.POLICIES]
        if unknown or not names:
            known = ", ".join(runner.POLICIES)
            self.fail(f"no policy {', '.join(unknown) or value!r}; there are {known}", param, ctx)
        return tuple(dict.fromkeys(names))
