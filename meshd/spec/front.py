"""What is set for the proxy as a whole, not for a service: whom it believes, and what it logs.

In a Compose file it stands under `x-mesh` at the top, for the daemon that `meshd up` starts with
the file; `meshd proxy` has the same keys.
"""

import ipaddress
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from meshd.spec.model import Model


def mode_alone(value: object) -> object:
    """Short for an access log of that mode. YAML's `on` and `off` may come as truth values."""
    if isinstance(value, bool):
        value = "on" if value else "off"
    return {"mode": value} if isinstance(value, str) else value


class AccessLog(Model):
    """See `proxy.config.LogConfig`."""

    mode: Literal["off", "sampled", "on"] = "off"
    format: Literal["json", "combined"] = "json"
    path: str = ""
    sample: Annotated[float, Field(ge=0, le=1)] = 0.01

    _short = model_validator(mode="before")(mode_alone)


def networks(value: tuple[str, ...]) -> tuple[str, ...]:
    """The networks as they came. Raises ValueError naming one that is none."""
    for each in value:
        try:
            ipaddress.ip_network(each, strict=False)
        except ValueError as error:
            raise ValueError(
                f"{each!r} is no network; expected one like 10.0.0.0/8, or an address"
            ) from error
    return value


class Front(Model):
    """The settings. `trusted_proxies` are networks in CIDR notation, or addresses."""

    trusted_proxies: tuple[str, ...] = ()
    access_log: AccessLog = AccessLog()

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    _check_networks = field_validator("trusted_proxies")(networks)
