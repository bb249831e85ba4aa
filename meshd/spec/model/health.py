"""`x-mesh.health`: the active probe of a replica.

Part of `meshd.spec.model.mesh`; `meshd.discovery.probe` runs the probes.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from meshd.spec.model.base import Duration, Model, WholeNumber
from meshd.spec.reader import shorthand


class HealthCheck(Model):
    """The active probe of each replica. A replica gets no requests before its first successful
    probe.

    - `type`: `http` requests `path`; `grpc` calls the health check of gRPC; `tcp` connects to the
      port; `none` sends no probes and uses
      the container's own health check, or only whether the container runs. `auto` is `tcp` for a
      port in `x-mesh.tcp` and for HTTP/2, unless a path is given, and else `http`
    - `path`: the path to request; a status of 2xx or 3xx is a success
    - `ready`: a second path to request. While it fails, the replica gets no requests, but is not
      restarted. Default: none
    - `host`: the Host that HTTP probes send. Default: the host of the service's first route that
      has an exact one, else the replica's address
    - `headers`: header fields that HTTP probes send
    - `service`: the service whose health `grpc` asks for. Default: the whole server
    - `interval`: seconds between two probes
    - `timeout`: seconds before a probe fails
    - `failures`: consecutive failures after which the replica gets no requests and is restarted
    - `start_timeout`: seconds within which a new replica must become healthy
    """

    type: Literal["auto", "http", "grpc", "tcp", "none"] = "auto"
    path: str = "/healthz"
    ready: str = ""
    host: str = ""
    headers: dict[str, str] = {}
    service: str = ""
    interval: Annotated[Duration, Field(gt=0)] = 1.0
    timeout: Annotated[Duration, Field(gt=0)] = 1.0
    failures: Annotated[WholeNumber, Field(ge=1)] = 3
    start_timeout: Annotated[Duration, Field(gt=0)] = 60.0

    _short = model_validator(mode="before")(shorthand.expand_health)
    _path = field_validator("path")(shorthand.check_request_target)
    _ready = field_validator("ready")(shorthand.check_optional_request_target)
    _host = field_validator("host")(shorthand.check_probe_host)
    _headers = field_validator("headers")(shorthand.check_probe_headers)

    def resolve(self, *, tcp: bool) -> "HealthCheck":
        """Return the health check with a definite type, for a port that speaks TCP or HTTP."""
        if self.type != "auto":
            return self
        return self.model_copy(update={"type": "tcp" if tcp else "http"})

    @model_validator(mode="after")
    def _check_ready(self) -> "HealthCheck":
        if self.service and self.type != "grpc":
            raise ValueError("service is for gRPC; expected type grpc")
        if self.ready and self.type == "none":
            raise ValueError("ready requires a probe, but type is none; expected http or tcp")
        if (self.host or self.headers) and self.type in ("tcp", "none") and not self.ready:
            raise ValueError(
                "host and headers are for HTTP probes, but there are none; expected type http, or "
                "ready"
            )
        return self
