"""TCP ports in the settings of a standalone proxy."""

import re
from pathlib import Path

import pytest

from meshd.spec.errors import SpecError
from meshd.standalone import build
from meshd.standalone.settings import StandaloneSettings, read_settings
from meshd.standalone.tcp_settings import TcpPort, name_ports
from proxy.wire.snapshot import Endpoint, Generation, Listener, Snapshot


def read(directory: Path, text: str) -> StandaloneSettings:
    file = directory / "proxy.yml"
    file.write_text(text)
    return read_settings(str(file), {})


def compile_settings(found: StandaloneSettings) -> Snapshot:
    resolved = {host: (host,) for host in build.list_hosts(found)}
    return build.build_snapshot(found, resolved, Generation(1, 1))


def test_a_port_is_a_service_and_a_listener(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "tcp: ['0.0.0.0:5432=10.0.0.1:5432,10.0.0.2:5432']\n"
        "listeners: {'0.0.0.0:5432': {proxy_protocol: {from: 10.0.0.9}}}\n",
    )
    assert (found.listen, found.to, found.addresses) == ((), (), ("0.0.0.0:5432",))
    made = compile_settings(found)
    (service,) = made.services
    assert (service.name, service.protocol, made.routes) == ("proxy/tcp-5432", "tcp", ())
    assert service.endpoints == (
        Endpoint("10.0.0.1:5432", "10.0.0.1", 5432),
        Endpoint("10.0.0.2:5432", "10.0.0.2", 5432),
    )
    listener = Listener(
        "0.0.0.0:5432", "published", service="proxy/tcp-5432", proxy_protocol=("10.0.0.9",)
    )
    assert made.listeners == (listener,)
    config = build.build_supervisor_config(found, {}, "", {})
    assert (config.listen, config.listeners) == (("0.0.0.0:5432",), (listener,))
    assert (
        StandaloneSettings.model_validate_json(found.model_dump_json(exclude_unset=True)) == found
    )


def test_http_is_served_too_and_tls_is_for_http_only(tmp_path: Path) -> None:
    text = "tcp: ':1=10.0.0.1:1'\nto: 10.0.0.2:80\ntls: {cert: a.pem, key: a.key}\n"
    found = read(tmp_path, text)
    assert found.addresses == ("127.0.0.1:8080", ":1")
    made = compile_settings(found)
    assert [each.name for each in made.services] == ["proxy/tcp-1", "proxy/upstream"]
    assert [each.targets[0].service for each in made.routes] == ["proxy/upstream"]
    config = build.build_supervisor_config(found, {}, "", {})
    assert [(each.address, each.tls is None) for each in config.listeners] == [
        ("127.0.0.1:8080", False),
        (":1", True),
    ]


def test_policies_are_those_of_the_proxy_unless_a_port_has_its_own(tmp_path: Path) -> None:
    text = (
        "balance: maglev\ntimeouts: {connect: 1s, tunnel: 1h}\ndrain: {tunnels: 5s}\ntcp:\n"
        "- {listen: ':1', to: 10.0.0.1:1}\n"
        "- {listen: ':2', to: 10.0.0.1:1, balance: random, timeouts: {tunnel: 1m}, parking: {}}\n"
    )
    one, two = compile_settings(read(tmp_path, text)).services
    assert (one.balance.algorithm, two.balance.algorithm) == ("maglev", "random")
    # A section of a port replaces that of the proxy.
    assert (one.timeouts.connect, one.timeouts.tunnel) == (1.0, 3600.0)
    assert (two.timeouts.connect, two.timeouts.tunnel) == (2.0, 60.0)
    assert (one.drain_tunnels, two.drain_tunnels) == (5.0, 5.0)
    assert (one.parking.on_refusal, two.parking.on_refusal) == (False, True)
    parked = compile_settings(read(tmp_path, f"parking: {{timeout: 1s}}\n{text}")).services
    assert [each.parking.on_refusal for each in parked] == [True, True]


def test_ports_by_server_name_share_an_address(tmp_path: Path) -> None:
    text = (
        "tcp:\n- {listen: ':1', to: 10.0.0.1:1, sni: DB.test}\n"
        "- {listen: ':1', to: 10.0.0.2:1, sni: '*.test', name: any}\n"
    )
    found = read(tmp_path, text)
    assert found.addresses == (":1",)
    made = compile_settings(found)
    assert [each.name for each in made.services] == ["proxy/any", "proxy/db.test"]
    names = (("db.test", "proxy/db.test"), ("*.test", "proxy/any"))
    listener = Listener(":1", "published", server_names=names)
    assert made.listeners == (listener,)
    made = compile_settings(read(tmp_path, text + "- {listen: ':1', to: 10.0.0.2:1}\n"))
    with_default = Listener(":1", "published", service="proxy/tcp-1", server_names=names)
    assert made.listeners == (with_default,)


def test_names() -> None:
    def named(*ports: dict[str, str]) -> list[str]:
        return list(name_ports(TcpPort.model_validate({"to": "a:1", **each}) for each in ports))

    own, other = {"listen": "127.0.0.1:5432"}, {"listen": "[::1]:5432"}
    assert named(own, other, {"listen": ":1"}) == ["tcp-5432", "tcp-5432-2", "tcp-1"]
    assert named(own, {**other, "name": "tcp-5432"}) == ["tcp-5432-2", "tcp-5432"]
    by_name = [{**own, "sni": sni} for sni in ("*.a.test", "a.test", "mirror")]
    assert named(*by_name) == ["wildcard.a.test", "a.test", "mirror-2"]
    assert named({"listen": "unix:/run/db main.sock"}) == ["tcp-db-main.sock"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tcp: 127.0.0.1:5432", "tcp.0: '127.0.0.1:5432' is not LISTEN=TARGET; expected e.g."),
        ("tcp: 5432=127.0.0.1:1", "tcp.0.listen: '5432' is not HOST:PORT"),
        ("tcp: 127.0.0.1:0=db", "tcp.0.to.0.address: 'db' is not HOST:PORT"),
        ("tcp: 127.0.0.1:0=https://db", "remove upstream.tls and https://"),
        ("tcp: {listen: ':1', to: a:1, upstream: {tls: {}}}", "remove upstream.tls and https://"),
        ("tcp: [127.0.0.1:0=a:1, 127.0.0.1:0=a:2]", "127.0.0.1:0 is given twice"),
        ("tcp: 127.0.0.1:80=a:1\nto: a:2\nlisten: 127.0.0.1:80", "127.0.0.1:80 is given twice"),
        (
            "tcp: [{listen: ':1', sni: a.test, to: a:1}, {listen: ':1', sni: A.test, to: a:1}]",
            ":1 is given twice; expected different addresses, or different sni",
        ),
        ("tcp: {listen: ':1', to: a:1, sni: 'a:443'}", "tcp.0.sni: 'a:443' is not a valid host"),
        ("tcp: {listen: ':1', to: a:1, sni: '*'}", "'*' means no sni; leave it out"),
        ("tcp: {listen: 127.0.0.1:0}", "tcp.0.to: "),
        ("tcp: {listen: 127.0.0.1:0, to: a:1, rotues: []}", "tcp.0.rotues: unknown setting"),
        ("tcp: {listen: 127.0.0.1:0, to: a:1, name: a/b}", "tcp.0.name: 'a/b' is not valid"),
        (
            "tcp: [{listen: ':1', to: a:1, name: a}, {listen: ':2', to: a:1, name: a}]",
            "two ports are named a; expected different names",
        ),
        (
            "tcp: {listen: ':1', to: a:1, name: upstream}",
            "upstream and mirror are names of the proxy's own services; expected another name",
        ),
        ("tcp: 127.0.0.1:0=a:1\nlisten: 127.0.0.2:0", "no address to send requests to; use --to"),
        ("tcp: []", "no address to send requests to; use --to"),
        ("to: a:1\nlisten: []", "listen is empty; expected an address"),
        ("tcp: 127.0.0.1:0=a:1\nmirror: a:2", "mirror copies requests"),
        (
            "tcp: ':1=a:1'\nlisteners: {':1': {redirect: https}}",
            ":1 passes TCP connections on as they are; remove tls, redirect and paths",
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SpecError, match=re.escape(said)):
        read(tmp_path, text)
