"""Networks of a project, and how a service joins one.

Part of `meshd.spec.model.project` and `meshd.spec.model.service`; read by
`meshd.spec.reader.networks`, created by `meshd.runtime.docker.network`.
"""

from meshd.spec.model.base import Model, ResourceName


class AddressPool(Model):
    """One entry of `ipam.config`: a range of addresses of a network; an empty value is chosen by
    the engine.

    - `subnet`, `ip_range`: in CIDR notation; containers get addresses of the range
    - `gateway`: the host's address
    - `aux_addresses`: addresses that no container gets, by name
    """

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    aux_addresses: dict[str, str] = {}


class Network(Model):
    """A declared network. An `internal` network has no access to other hosts.

    - `engine_name`: its name on the engine; empty for `PROJECT_NAME`
    - `external`: it exists already, and meshd neither creates nor removes it
    - `driver`: empty for `bridge`
    - `pools`: its address ranges; empty if the engine chooses them
    - `enable_ipv4`: None if the file does not say, which means true
    - `static_addresses`: IPv4 addresses there that services of the project ask for
    - `attachable`: whether containers that meshd did not start may join it in a cluster
    - `labels`: additional labels on the engine
    """

    name: ResourceName
    internal: bool = False
    engine_name: str = ""
    external: bool = False
    driver: str = ""
    driver_opts: dict[str, str] = {}
    ipam_driver: str = ""
    ipam_options: dict[str, str] = {}
    pools: tuple[AddressPool, ...] = ()
    static_addresses: tuple[str, ...] = ()
    enable_ipv4: bool | None = None
    enable_ipv6: bool = False
    attachable: bool = False
    labels: dict[str, str] = {}


class Attachment(Model):
    """How a service joins one network; an empty value is chosen by the engine.

    - `link_local_ips`: additional link-local addresses
    - `priority`: networks with a higher one are joined first
    - `gw_priority`: the network with the highest one has the default route
    - `interface_name`: the name of the interface in the container
    """

    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: tuple[str, ...] = ()
    mac_address: str = ""
    driver_opts: dict[str, str] = {}
    priority: int = 0
    gw_priority: int = 0
    interface_name: str = ""

    @property
    def has_address(self) -> bool:
        """Whether only one container can join the network in this manner at a time."""
        return bool(self.ipv4_address or self.ipv6_address or self.mac_address)
