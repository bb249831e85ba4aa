"""The base class and the scalar types of the spec models.

Used by the other modules of `meshd.spec.model`. Durations are seconds and sizes are bytes; as
input, both also accept text with units (`200ms`, `64k`), see `meshd.spec.units`.
"""

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from meshd.spec import units

MAX_REPLICAS: Final = 5_000
"""Most replicas of a service. It is more than twenty hosts can run, and keeps a typing error from
making the daemon plan for minutes."""
_NUMBER_OR_TEXT = {"type": ["string", "number"]}
Duration = Annotated[
    float,
    BeforeValidator(units.parse_duration),
    WithJsonSchema(_NUMBER_OR_TEXT, mode="validation"),
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
"""At most 63 characters: the longest label of a DNS name."""
ServiceName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,62}$")]
"""A name of a service, as Compose allows them; at most 63 characters, as above."""
ResourceName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,128}$")]
"""The key of a network, as Compose allows them. 128 characters are enough for any."""


class Model(BaseModel):
    """Base class of the spec models: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
