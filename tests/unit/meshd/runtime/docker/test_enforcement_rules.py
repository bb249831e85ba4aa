"""Rules that keep containers of one network from connecting past the mesh."""

from meshd.runtime.docker.enforcement_rules import ContainerAddress, enforcement_rules

API = ContainerAddress("br-app", "172.18.0.3", "veth3", guarded=True)
WEB = ContainerAddress("br-app", "172.18.0.2", "veth2", guarded=False)
ALONE = ContainerAddress("br-web", "172.19.0.2", "veth9", guarded=False)
TAIL = "-m comment --comment br-app -j DROP"


def test_addresses_are_bound_to_their_containers_and_guarded_ones_closed() -> None:
    assert enforcement_rules([API, WEB, ALONE], "IPv4") == [
        f"-s 172.18.0.2/32 -i br-app -m physdev --physdev-is-in ! --physdev-in veth2 {TAIL}",
        f"-s 172.18.0.3/32 -i br-app -m physdev --physdev-is-in ! --physdev-in veth3 {TAIL}",
        f"-d 172.18.0.3/32 -m conntrack ! --ctstate RELATED,ESTABLISHED {TAIL}",
    ]


def test_a_container_whose_interface_is_unknown_is_closed_but_not_bound() -> None:
    unknown = ContainerAddress("br-app", "172.18.0.4", "", guarded=True)

    assert enforcement_rules([unknown], "IPv4") == [
        f"-d 172.18.0.4/32 -m conntrack ! --ctstate RELATED,ESTABLISHED {TAIL}"
    ]


def test_each_ip_version_has_its_own_rules() -> None:
    six = ContainerAddress("br-app", "fd00::3", "veth3", guarded=True)

    assert enforcement_rules([API, six], "IPv6") == [
        f"-s fd00::3/128 -i br-app -m physdev --physdev-is-in ! --physdev-in veth3 {TAIL}",
        f"-d fd00::3/128 -m conntrack ! --ctstate RELATED,ESTABLISHED {TAIL}",
    ]
    assert not enforcement_rules([API], "IPv6")
