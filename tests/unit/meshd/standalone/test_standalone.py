"""Flags and file to the snapshot and configuration of a standalone proxy."""

import os
import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from meshd.cli.commands.proxy import raw_flags
from meshd.model.replica import ProbeResult
from meshd.spec.errors import SpecError
from meshd.standalone import build
from meshd.standalone.helper import Helper, is_unhealthy
from meshd.standalone.listeners import build_listeners
from meshd.standalone.memory import HelperMemory, create_memory_file, read_memory, write_memory
from meshd.standalone.settings import StandaloneSettings, read_settings
from proxy.wire.snapshot import Endpoint, Generation, Listener
from tests.support.certificate_authority import Authority


def settings(directory: Path, text: str, **flags: Any) -> StandaloneSettings:
    file = directory / "proxy.yml"
    file.write_text(text)
    return read_settings(str(file), raw_flags(flags))


@pytest.mark.parametrize(
    "text",
    [
        "to: 127.0.0.1:9\nbalance: random\ntimeouts: {connect: 500ms}\n",
        "to: [127.0.0.1:9]\nx-mesh:\n  balance: {algorithm: random}\n  timeouts: {connect: 0.5}\n",
        "to:\n- {address: 127.0.0.1:9}\nx-mesh: {balance: random}\ntimeouts: {connect: 0.5s}\n",
    ],
)
def test_policies_are_at_the_top_level_or_under_x_mesh(tmp_path: Path, text: str) -> None:
    found = settings(tmp_path, text)
    assert found.mesh.balance.algorithm == "random"
    assert found.mesh.timeouts.connect == 0.5
    assert [to.address for to in found.to] == ["127.0.0.1:9"]
    assert not found.probes


def test_flags_override_single_keys_of_a_section(tmp_path: Path) -> None:
    text = "to: 127.0.0.1:9\nhealth: /ready\nretries: {attempts: 5, budget: 0.5}\naccess_log: on\n"
    found = settings(
        tmp_path, text, retries=1, health_interval="3s", to=("127.0.0.1:1",), admin=None
    )
    assert (found.mesh.retries.attempts, found.mesh.retries.budget) == (1, 0.5)
    assert (found.mesh.health.path, found.mesh.health.interval) == ("/ready", 3.0)
    assert [to.address for to in found.to] == ["127.0.0.1:1"]
    assert found.access_log.mode == "on"
    assert found.probes


def test_a_url_of_an_endpoint_means_tls_with_its_host_as_the_name() -> None:
    found = read_settings("", raw_flags({"to": ("https://a.example", "https://10.0.0.1:8443")}))
    assert [to.address for to in found.to] == ["a.example:443", "10.0.0.1:8443"]
    resolved = {"a.example": ("10.0.0.2", "10.0.0.3"), "10.0.0.1": ("10.0.0.1",)}
    snapshot = build.build_snapshot(found, resolved, Generation(1, 1))
    (service,) = snapshot.services
    assert service.tls is not None
    assert not service.tls.insecure
    names = {each.host: each.server_name for each in service.endpoints}
    assert names == {"10.0.0.1": "10.0.0.1", "10.0.0.2": "a.example", "10.0.0.3": "a.example"}
    probed = build.build_probe_opening(found, service.endpoints[1]).tls
    assert probed is not None
    assert probed.server_name == service.endpoints[1].server_name
    plain = read_settings("", raw_flags({"to": ("http://[::1]", "http://a:81", "unix:/x")}))
    assert [to.address for to in plain.to] == ["[::1]:80", "a:81", "unix:/x"]
    assert plain.tls is None
    again = StandaloneSettings.model_validate_json(found.model_dump_json())
    assert again == found


def test_tls_settings_of_endpoints_in_the_file(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ca = Path(authority.ca)
    text = f"to: [10.0.0.1:1, 'unix:/x']\nupstream: {{tls: {{ca: {ca.name}}}}}\n"
    found = settings(tmp_path, text)
    assert found.upstream_tls is not None
    assert found.upstream_tls.ca == str(ca)
    endpoints = build.build_endpoints(found, {"10.0.0.1": ("10.0.0.1",)})
    assert [each.server_name for each in endpoints] == ["10.0.0.1", "localhost"]
    named = settings(tmp_path, text.replace("ca:", "server_name: b.example, ca:"))
    endpoints = build.build_endpoints(named, {"10.0.0.1": ("10.0.0.1",)})
    assert {each.server_name for each in endpoints} == {"b.example"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("to: [https://a, 'b:1']", "to mixes https:// with other addresses"),
        ("to: a:1\nprotocol: h2", "protocol h2 is HTTP/2 over TLS"),
        ("to: https://a\nprotocol: h2c", "protocol h2c is HTTP/2 in the clear"),
        ("to: ftp://a", "'ftp://a' is not an address to connect to"),
        ("to: https://a/path", "'https://a/path' is not an address to connect to"),
        ("to: a:1\nupstream: {tls: {ca: no.pem}}", "no.pem cannot be read: No such file"),
        ("to: a:1\nupstream: {tls: {key: a.key}}", "key is set without cert"),
        ("to: a:1\nupstream: {tls: {ca: a, insecure: true}}", "ca has no effect"),
        ("to: a:1\nupstream: {tls: {server_name: 'a:1'}}", "'a:1' is not a valid name"),
    ],
)
def test_mistakes_in_tls_settings_of_endpoints(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SpecError) as error:
        settings(tmp_path, text)
    assert reason in str(error.value)
    assert "proxy.yml:" in str(error.value)


def test_flags_alone_are_enough() -> None:
    found = read_settings("", raw_flags({"to": ("127.0.0.1:9",), "health_path": "/ok"}))
    assert found.listen == ("127.0.0.1:8080",)
    assert found.mesh.health.path == "/ok"


def test_each_error_is_reported_once(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as one:
        read_settings("", {"to": ["nonsense"]})
    assert [each.text for each in one.value.problems] == [
        "'nonsense' is not HOST:PORT, [V6]:PORT or unix:PATH"
    ]
    file = tmp_path / "proxy.yml"
    file.write_text("to: 127.0.0.1:9\ntimeouts: {head: 0s}\notlp: nope\naccess_log: loud\n")
    with pytest.raises(SpecError) as several:
        read_settings(str(file), {})
    assert sorted(str(each).removeprefix(str(file)) for each in several.value.problems) == [
        ":2: timeouts.head: '0s' is not valid; expected greater than 0",
        ":3: otlp.endpoint: 'nope' is not a valid URL; expected e.g. http://127.0.0.1:4318",
        ":4: access_log.mode: 'loud' is not valid; expected off, sampled or on",
    ]


def test_a_name_yields_all_its_addresses_without_duplicates() -> None:
    found = read_settings("", {"to": ["shop:80", "10.0.0.2:80", "unix:/run/a.sock", "[::1]:80"]})
    resolved = {"shop": ("10.0.0.1", "10.0.0.2"), "10.0.0.2": ("10.0.0.2",), "::1": ("::1",)}
    assert build.build_endpoints(found, resolved) == (
        Endpoint("10.0.0.1:80", "10.0.0.1", 80),
        Endpoint("10.0.0.2:80", "10.0.0.2", 80),
        Endpoint("unix:/run/a.sock", "", 0, path="/run/a.sock"),
        Endpoint("[::1]:80", "::1", 80),
    )


def test_addresses_of_the_other_family_are_alternatives() -> None:
    found = read_settings("", {"to": ["shop:80"]})
    resolved = {"shop": ("fd00::1", "fd00::2", "fd00::3", "10.0.0.1", "10.0.0.2")}
    assert build.build_endpoints(found, resolved) == (
        Endpoint("[fd00::1]:80", "fd00::1", 80, alternatives=("10.0.0.1", "10.0.0.2")),
        Endpoint("[fd00::2]:80", "fd00::2", 80, alternatives=("10.0.0.2", "10.0.0.1")),
        Endpoint("[fd00::3]:80", "fd00::3", 80, alternatives=("10.0.0.1", "10.0.0.2")),
    )


async def test_each_name_resolves_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "RESOLVE_SECONDS", 2.0)
    found = read_settings(
        "", {"to": ["a:80", "moved:80", "gone:80", "slow:80"], "mirror": "new:80"}
    )
    end = threading.Event()

    def resolver(host: str) -> tuple[str, ...]:
        if host == "slow":
            end.wait(120)
        if host in ("gone", "new"):
            raise build.UnknownHost(f"cannot resolve the host {host} (unknown)")
        return (f"10.0.0.{len(host)}",)

    known = {"moved": ("10.0.0.9",), "gone": ("10.0.0.8",), "slow": ("10.0.0.7",)}
    try:
        resolved, problems = await build.resolve_hosts(found, resolver, known)
    finally:
        end.set()
    assert resolved == {
        "a": ("10.0.0.1",),
        "moved": ("10.0.0.5",),
        "gone": ("10.0.0.8",),
        "slow": ("10.0.0.7",),
        "new": (),
    }
    assert problems == {
        "gone": "cannot resolve the host gone (unknown)",
        "new": "cannot resolve the host new (unknown)",
        "slow": "cannot resolve the host slow (no answer in 2 s)",
    }
    assert len(build.build_endpoints(found, resolved)) == 4


def test_a_host_keeps_the_order_of_families(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["10.0.0.2", "fd00::1", "10.0.0.1", "10.0.0.2"]
    infos = [
        (socket.AF_INET6 if ":" in each else socket.AF_INET, 1, 6, "", (each, 0))
        for each in answers
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos)
    assert build.resolve_host("shop") == ("10.0.0.1", "10.0.0.2", "fd00::1")


async def test_a_restarted_helper_continues_where_the_last_one_was(tmp_path: Path) -> None:
    memory = create_memory_file()
    file = tmp_path / "proxy.yml"
    file.write_text("to: [shop:80, other:80]\nhealth: /ok\n")
    left, right = socket.socketpair()
    with left, right:
        write_memory(
            memory,
            HelperMemory(
                {"shop": ("10.0.0.1", "10.0.0.2"), "other": ("10.0.0.3",)},
                ("10.0.0.2:80",),
                read_settings(str(file), {}).model_dump_json(),
            ),
        )

        def resolver(host: str) -> tuple[str, ...]:
            raise build.UnknownHost(f"cannot resolve the host {host}")

        helper = Helper(str(file), {}, left, None, memory, resolver)
        await helper._refresh()
        status = helper.get_status().services[0]
        assert (status.desired, status.ready) == (3, 2)
        file.write_text("to: [shop:80\n")
        assert (
            Helper(str(file), {}, left, None, memory, resolver).get_status().services[0].ready == 2
        )
    os.close(memory)


@pytest.mark.parametrize("text", ["to: 10.0.0.1:80\n", "to: 10.0.0.1:80\nparking: {}\n"])
async def test_a_restarted_helper_knows_which_settings_were_given(
    tmp_path: Path, text: str
) -> None:
    """Whether refused requests wait depends on that."""
    memory = create_memory_file()
    file = tmp_path / "proxy.yml"
    file.write_text(text)
    left, right = socket.socketpair()
    with left, right:
        first = Helper(str(file), {}, left, None, memory)
        first._remember()
        file.write_text("to: [")
        second = Helper(str(file), {}, left, None, memory)
        for helper in (first, second):
            snapshot = build.build_snapshot(helper._settings, {}, Generation(1, 1))
            assert snapshot.services[0].parking.on_refusal is ("parking" in text)
    os.close(memory)


def test_an_unreadable_memory_is_ignored() -> None:
    memory = create_memory_file()
    os.write(memory, b'{"resolved": {"a"')
    assert read_memory(memory) == HelperMemory()
    write_memory(memory, HelperMemory({"a": ("10.0.0.1",)}))
    assert read_memory(memory).resolved == {"a": ("10.0.0.1",)}
    os.close(memory)
    assert read_memory(-1) == HelperMemory()


def test_the_snapshot_routes_all_requests_and_drains_unhealthy_endpoints() -> None:
    found = read_settings(
        "", {"to": ["10.0.0.1:80", "10.0.0.2:80"], "trusted_proxies": ["10.0.0.0/8"]}
    )
    resolved = {"10.0.0.1": ("10.0.0.1",), "10.0.0.2": ("10.0.0.2",)}
    made = build.build_snapshot(found, resolved, Generation(1, 1), unhealthy=["10.0.0.2:80"])
    assert [(e.id, e.state) for e in made.services[0].endpoints] == [
        ("10.0.0.1:80", "ready"),
        ("10.0.0.2:80", "draining"),
    ]
    assert [(r.host, r.path, r.targets[0].service) for r in made.routes] == [("*", "/", build.KEY)]
    assert made.trusted_proxies == ("10.0.0.0/8",)


def test_settings_of_single_addresses() -> None:
    listen = ["127.0.0.1:80", "unix:/run/a.sock"]
    given = {"127.0.0.1:80": {"paths": "as-is"}, "unix:/run/a.sock": {"mode": "0660"}}
    found = read_settings("", {"to": "127.0.0.1:1", "listen": listen, "listeners": given})
    assert build_listeners(found, found.listen) == (
        Listener("127.0.0.1:80", paths="as-is"),
        Listener("unix:/run/a.sock", mode=0o660),
    )


@pytest.mark.parametrize(
    ("log", "otlp", "query"),
    [
        ({}, {}, True),
        ({"query": ["key"]}, {}, ("key",)),
        ({"query": False}, {"query": True}, True),
        ({}, {"query": False}, False),
    ],
)
def test_spans_hide_what_the_access_log_hides_unless_set(
    log: dict[str, Any], otlp: dict[str, Any], query: object
) -> None:
    otlp["endpoint"] = "http://127.0.0.1:4318"
    found = read_settings("", {"to": "127.0.0.1:1", "access_log": log, "otlp": otlp})
    assert build.build_span_config(found).query == query


@pytest.mark.parametrize(
    ("listeners", "reason"),
    [
        ({"unix:/x": {}}, "listeners: unix:/x is not an address in listen: 127.0.0.1:8080"),
        ({"127.0.0.1:8080": {"mode": "0660"}}, "127.0.0.1:8080 has no mode; only Unix sockets"),
        ({"unix:/x": {"mode": 432}}, "432 is not a valid mode; expected octal digits in quotes"),
        ({"unix:/x": {"mode": "rw"}}, "'rw' is not a valid mode"),
        ({"127.0.0.1:8080": {"paths": "loose"}}, "'loose' is not valid; expected strict or as-is"),
        ({"127.0.0.1:8080": {"path": "strict"}}, "listeners.127.0.0.1:8080.path: unknown setting"),
        ({"8080": {}}, "listeners: 8080 is not an address in listen"),
    ],
)
def test_mistakes_in_settings_of_single_addresses(listeners: dict[str, Any], reason: str) -> None:
    with pytest.raises(SpecError, match=re.escape(reason)):
        read_settings("", {"to": "127.0.0.1:1", "listeners": listeners})


@pytest.mark.parametrize(
    ("given", "helper"),
    [
        ({}, False),
        ({"admin": "127.0.0.1:0"}, True),
        ({"health": {"path": "/ok"}}, True),
        ({"to": ["localhost:80"]}, True),
    ],
)
def test_the_helper_runs_only_if_needed(given: dict[str, Any], helper: bool) -> None:
    flags = {"to": ["127.0.0.1:80"], **given}
    found = read_settings("", flags)
    resolved = dict.fromkeys(build.list_hosts(found), ("127.0.0.1",))
    assert bool(build.build_supervisor_config(found, resolved, "", flags).children) is helper


@pytest.mark.parametrize(
    ("result", "unhealthy"),
    [
        (None, False),
        (ProbeResult(), False),
        (ProbeResult(first_good=1.0), False),
        (ProbeResult(bad=1), True),
        (ProbeResult(bad=2, first_good=1.0), False),
        (ProbeResult(bad=3, first_good=1.0), True),
    ],
)
def test_unhealthy_endpoints(result: ProbeResult | None, unhealthy: bool) -> None:
    assert is_unhealthy(result, failures=3) is unhealthy
