"""The active probe."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from meshd.spec.model.base import Duration, Model, WholeNumber
from meshd.spec.reader import shorthand


class HealthCheck(Model):
    """Active probe. Without `path` and with `tcp` the port only has to accept; `type: none`
    trusts the container's own health check, or its running, alone. A replica gets no request
    before its first good probe; `failures` bad ones in a row take it out of rotation and have
    it restarted; it must become healthy within `start_timeout`. While `ready`, a path asked for
    beside, answers badly, it gets no requests and is let be."""

    type: Literal["http", "tcp", "none"] = "http"
    path: str = "/healthz"
    ready: str = ""
    interval: Annotated[Duration, Field(gt=0)] = 1.0
    timeout: Annotated[Duration, Field(gt=0)] = 1.0
    failures: Annotated[WholeNumber, Field(ge=1)] = 3
    start_timeout: Annotated[Duration, Field(gt=0)] = 60.0

    _short = model_validator(mode="before")(shorthand.expand_health)
    _path = field_validator("path")(shorthand.check_request_target)
    _ready = field_validator("ready")(shorthand.check_optional_request_target)

    @model_validator(mode="after")
    def _asked_for(self) -> "HealthCheck":
        if self.ready and self.type == "none":
            raise ValueError("ready is asked for with the probe; type: none has none")
        return self
