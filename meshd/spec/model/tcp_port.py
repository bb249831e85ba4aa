"""A port in `x-mesh.tcp`, and the policies that a TCP port may have for itself.

Part of `meshd.spec.model.mesh`; the TCP ports of the stand-alone proxy have the same policies.
"""

from typing import Any

from pydantic import (
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from meshd.spec.model.base import Model, Port
from meshd.spec.model.traffic import Balance, EjectSpec, LimitsSpec, ParkingSpec, Retries, Timeouts
from meshd.spec.reader import shorthand


def check_sni(value: str) -> str:
    """Return a server name, exact or `*.suffix`, in lower case. Raises ValueError."""
    if value == "*":
        raise ValueError("'*' means no sni; leave it out")
    return shorthand.check_host(value)


class PortPolicies(Model):
    """Policies of one TCP port. A section that is None is that of the service, or of the proxy.

    - `balance`, `timeouts`, `retries`, `limits`, `parking`, `eject`: see `Mesh`
    """

    balance: Balance | None = None
    timeouts: Timeouts | None = None
    retries: Retries | None = None
    limits: LimitsSpec | None = None
    parking: ParkingSpec | None = None
    eject: EjectSpec | None = None

    def sections(self) -> dict[str, Model]:
        """Return the sections that the port has for itself."""
        found = {name: getattr(self, name) for name in PortPolicies.model_fields}
        return {name: section for name, section in found.items() if section is not None}


class TcpPortSpec(PortPolicies):
    """A port of replicas that does not speak HTTP. Short: its number.

    - `port`: the port of the replicas
    - `sni`: server names, exact or `*.suffix`, that clients of TLS must ask for where the port is
      published; services with different names may publish the same port of the host. Default: all
      connections, or those that no other service at that port is for
    - `balance`, `timeouts`, `retries`, `limits`, `parking`, `eject`: policies of the port. Default:
      those of the service
    """

    port: Port
    sni: tuple[str, ...] = ()

    _many_names = field_validator("sni", mode="before")(shorthand.wrap_in_list)

    @field_validator("sni")
    @classmethod
    def _check_sni(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(check_sni, value)))

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: object) -> object:
        return {"port": value} if isinstance(value, int | str) else value

    @model_serializer(mode="wrap")
    def _shorten(self, handler: SerializerFunctionWrapHandler) -> int | dict[str, Any]:
        """Write a port alone as its number, as earlier versions did."""
        return handler(self) if self.sections() or self.sni else self.port
