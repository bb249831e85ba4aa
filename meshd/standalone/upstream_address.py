"""Addresses that a standalone proxy connects to, as its settings have them.

Part of `meshd.standalone.settings` and `meshd.standalone.tcp_settings`; `meshd.standalone.build`
makes endpoints of them.
"""

from typing import Annotated, Any, Final

from pydantic import Field, field_validator, model_validator

from meshd.spec.model import Model
from proxy.ipc import address

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
"""Port of a URL without one (RFC 9110, section 4.2)."""


class UpstreamAddress(Model):
    """An address to balance over; a host name means all addresses it resolves to.

    - `address`: `HOST:PORT`, `unix:PATH`, or `https://HOST` with an optional port
    - `weight`: the relative share of the requests
    - `encrypted`: whether the address has `https://`
    """

    address: str
    weight: Annotated[float, Field(gt=0)] = 1.0
    encrypted: bool = False

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        found = {"address": value} if isinstance(value, str) else value
        if isinstance(found, dict) and isinstance(found.get("address"), str):
            return {**found, **_split_scheme(found["address"])}
        return found

    @field_validator("address")
    @classmethod
    def _check(cls, value: str) -> str:
        found = address.parse(value)
        if not found.path and not (found.host and found.port):
            raise ValueError(
                f"{value!r} is not an address to connect to; expected e.g. 127.0.0.1:80"
            )
        return value


def _split_scheme(text: str) -> dict[str, Any]:
    """Return `address` without a scheme, and whether the scheme asks for TLS."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return {"address": text}
    rest = rest.removesuffix("/")
    port = _DEFAULT_PORTS.get(scheme)
    if port is None or not rest or "/" in rest:
        raise ValueError(
            f"{text!r} is not an address to connect to; expected e.g. https://10.0.0.1:8443 or "
            "127.0.0.1:80"
        )
    has_port = rest.rpartition("]")[2].count(":") == 1
    return {"address": rest if has_port else f"{rest}:{port}", "encrypted": scheme == "https"}
