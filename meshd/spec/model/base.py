"""The base of the spec's values, and scalars as people write them.

Durations are seconds, sizes bytes; as input both may be written for people (`200ms`, `64k`).
"""

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from meshd.spec import units

MAX_REPLICAS: Final = 5_000
"""Of one service. More than the hosts that one daemon is for can run; a slip of the pen would have
it plan for minutes."""
_NUMBER_OR_TEXT = {"type": ["string", "number"]}
Duration = Annotated[
    float, BeforeValidator(units.parse_duration), WithJsonSchema(_NUMBER_OR_TEXT, mode="validation")
]
Size = Annotated[
    int, BeforeValidator(units.parse_size), WithJsonSchema(_NUMBER_OR_TEXT, mode="validation")
]
WholeNumber = Annotated[int, BeforeValidator(units.reject_boolean)]
Count = Annotated[WholeNumber, Field(ge=0)]
Port = Annotated[WholeNumber, Field(ge=1, le=65535)]
Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[
    float,
    BeforeValidator(units.parse_share),
    Field(gt=0, le=1),
    WithJsonSchema(_NUMBER_OR_TEXT, mode="validation"),
]
CountOrPercent = Annotated[
    str,
    BeforeValidator(units.parse_count_or_percent),
    WithJsonSchema(_NUMBER_OR_TEXT, mode="validation"),
]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$")]


class Model(BaseModel):
    """Base of the spec's values: immutable and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")
