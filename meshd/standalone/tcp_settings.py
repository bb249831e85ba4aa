"""TCP ports of a standalone proxy, as its settings have them.

Part of `meshd.standalone.settings`; `meshd.standalone.build` makes a service and a listener of each
port.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Final, Self

from pydantic import Field, field_validator, model_validator

from meshd.spec.model import Mesh, PortPolicies, TcpPortSpec, UpstreamSpec
from meshd.spec.model.base import ServiceName
from meshd.spec.model.service import DEFAULT_PORT
from meshd.spec.model.tcp_port import check_sni
from meshd.standalone.upstream_address import UpstreamAddress
from proxy.ipc import address

_MAX_NAME: Final = 60
"""Characters of the longest default name; a number still fits behind it."""
RESERVED_NAMES: Final = ("upstream", "mirror")
"""Names of the services that get the proxy's HTTP requests."""


class TcpPort(PortPolicies):
    """An address whose connections are passed on as they are. Short: `LISTEN=TARGET[,TARGET...]`.

    - `listen`: the address to accept connections on
    - `to`: the addresses to balance over
    - `sni`: the server name, exact or `*.suffix`, that clients of TLS must ask for; several ports
      may have the same address with different names. Default: all connections, or those that no
      other port at the address is for
    - `name`: its name in metrics and logs. Default: `sni`, else `tcp-PORT`
    - `balance`, `timeouts`, `retries`, `limits`, `parking`, `eject`, `upstream`: policies. Default:
      those of the proxy
    """

    listen: str
    to: Annotated[tuple[UpstreamAddress, ...], Field(min_length=1)]
    sni: str = ""
    name: ServiceName | None = None
    upstream: UpstreamSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        listen, separator, targets = value.partition("=")
        if not separator or not listen or not targets:
            raise ValueError(
                f"{value!r} is not LISTEN=TARGET; expected e.g. "
                "0.0.0.0:5432=10.0.0.1:5432,10.0.0.2:5432"
            )
        return {"listen": listen, "to": targets.split(",")}

    @field_validator("to", mode="before")
    @classmethod
    def _wrap_in_list(cls, value: object) -> object:
        return [value] if isinstance(value, str | dict) else value

    @field_validator("sni")
    @classmethod
    def _check_sni(cls, value: str) -> str:
        return check_sni(value) if value else ""

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str | None) -> str | None:
        if value in RESERVED_NAMES:
            raise ValueError(
                "upstream and mirror are names of the proxy's own services; expected another name"
            )
        return value

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        address.parse(value)
        return value

    @model_validator(mode="after")
    def _check_encryption(self) -> Self:
        encrypted = self.upstream is not None and self.upstream.tls is not None
        if encrypted or any(each.encrypted for each in self.to):
            raise ValueError(
                "TCP connections are passed on as they are; remove upstream.tls and https://"
            )
        return self

    def policies(self, common: Mesh) -> Mesh:
        """Return the policies of the port; `common` are those of the proxy."""
        own = {**self.sections(), "upstream": self.upstream or common.upstream}
        tcp = (TcpPortSpec(port=DEFAULT_PORT),)
        return common.model_copy(update={**own, "port": DEFAULT_PORT, "tcp": tcp, "routes": ()})


def name_ports(ports: Iterable[TcpPort]) -> dict[str, TcpPort]:
    """Return the ports by name. Of several with the same default name, the second one gets `-2`
    and so on. Raises ValueError if two are given the same name."""
    ports = tuple(ports)
    named: dict[str, TcpPort] = {}
    for port in ports:
        if port.name is not None and named.setdefault(port.name, port) is not port:
            raise ValueError(f"two ports are named {port.name}; expected different names")
    found: dict[str, TcpPort] = {}
    for port in ports:
        name = port.name or _default_name(port)
        number = 2
        taken = {*found, *named, *RESERVED_NAMES}
        while port.name is None and name in taken:
            name = f"{_default_name(port)}-{number}"
            number += 1
        found[name] = port
    return found


def _default_name(port: TcpPort) -> str:
    """Return the server name, else `tcp-PORT`, or `tcp-FILE` for a Unix socket."""
    if port.sni:
        return port.sni.replace("*", "wildcard")[:_MAX_NAME]
    parsed = address.parse(port.listen)
    file = re.sub(r"[^a-zA-Z0-9._-]", "-", parsed.path.rpartition("/")[2])
    return f"tcp-{file if parsed.path else parsed.port}"[:_MAX_NAME]
