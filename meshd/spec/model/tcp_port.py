"""A port in `x-mesh.tcp`, and the policies that a TCP port may have for itself.

Part of `meshd.spec.model.mesh`; the TCP ports of the stand-alone proxy have the same policies.
"""

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from meshd.spec.model.base import Model, Port
from meshd.spec.model.traffic import Balance, EjectSpec, LimitsSpec, ParkingSpec, Retries, Timeouts


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
    - `balance`, `timeouts`, `retries`, `limits`, `parking`, `eject`: policies of the port. Default:
      those of the service
    """

    port: Port

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: object) -> object:
        return {"port": value} if isinstance(value, int | str) else value

    @model_serializer(mode="wrap")
    def _shorten(self, handler: SerializerFunctionWrapHandler) -> int | dict[str, Any]:
        """Write a port without policies as its number, as earlier versions did."""
        return handler(self) if self.sections() else self.port
