"""Compose keys that a Swarm refuses or ignores, each by its name."""

from dataclasses import replace
from pathlib import Path

import pytest

from meshd.runtime.support import refused_names, unsupported
from meshd.runtime.swarm.runtime import CAPABILITIES
from meshd.spec.compose import load


def lacks(tmp_path: Path, text: str) -> tuple[list[str], list[str]]:
    """Return what is refused and what is ignored in the first service of a file."""
    file = tmp_path / "compose.yml"
    more = "  other: {image: x}\n"
    file.write_text(f"name: shop\nservices:\n  web:\n    image: web:1\n    {text}\n{more}")
    service = load([file], environment={}).project.services[0]
    found = unsupported(service, CAPABILITIES)
    assert all(str(each).startswith("service web: ") for each in found)
    refused = [each.text for each in found if each.refuse]
    return refused, [each.text for each in found if not each.refuse]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("privileged: true", "privileged does not exist in a Swarm"),
        ("devices: ['/dev/null:/dev/x']", "devices does not exist in a Swarm"),
        ("gpus: all", "gpus does not exist in a Swarm"),
        ("network_mode: host", "network_mode does not exist in a Swarm"),
        ("network_mode: 'service:other'", "network_mode does not exist in a Swarm"),
        ("pid: host", "pid does not exist in a Swarm"),
        ("ipc: host", "ipc does not exist in a Swarm"),
        ("build: .", "build does not exist in a Swarm"),
        ("security_opt: ['label:disable']", "security_opt does not exist in a Swarm"),
        ("volumes_from: [other]", "volumes_from does not exist in a Swarm"),
        ("links: ['other:o']", "links with an alias do not exist in a Swarm"),
        ("deploy: {mode: global-job}", "deploy.mode: global-job is not supported in a Swarm"),
        (
            "deploy: {mode: global}\n    x-mesh: {scale: {min: 1, max: 2}}",
            "x-mesh.scale is of no use with deploy.mode: global",
        ),
        ("mac_address: 02:42:ac:11:65:43", "mac_address does not exist in a Swarm"),
        ("networks: {default: {ipv4_address: 10.9.0.2}}", "networks.default: fixed addresses"),
        ("ports: ['127.0.0.1:80:80']", "a Swarm publishes on all addresses of a node"),
        ("ports: ['8000-8001:80']", "a Swarm takes one port, not a range"),
        ("post_start: [{command: x}]", "post_start does not exist in a Swarm"),
        ("pre_stop: [{command: x}]", "pre_stop does not exist in a Swarm"),
        ("tmpfs: ['/x:noexec']", "the options of the tmpfs at /x"),
    ],
)
def test_refused(tmp_path: Path, text: str, expected: str) -> None:
    refused, _ = lacks(tmp_path, text)
    assert any(expected in each for each in refused), refused


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cpu_shares: 5", "cpu_shares have no effect in a Swarm"),
        ("volumes: ['/etc:/e:ro']", "/etc must exist on each node"),
        ("x-mesh: {allow: [other]}", "x-mesh.allow holds for calls through the mesh"),
        ("x-mesh: {tcp: [5432]}", "passes no connections on to TCP port 5432"),
        ("x-mesh: {scale: {min: 1, max: 2, warm: 1}}", "scale.warm is ignored"),
    ],
)
def test_ignored(tmp_path: Path, text: str, expected: str) -> None:
    refused, ignored = lacks(tmp_path, text)
    assert refused == []
    assert any(expected in each for each in ignored), ignored


def test_an_ordinary_service_lacks_nothing(tmp_path: Path) -> None:
    assert lacks(tmp_path, "ports: ['53:53/udp']\n    hostname: x") == ([], [])


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        (f"{'a' * 52}: {{image: x}}", []),
        ("a_-b_: {image: x}", []),
        ("_web: {image: x}", []),
        ("web.api: {image: x}", ["services.web.api: its replicas and jobs would have names like "
         "shop-web.api-xxxxx, and a Swarm accepts only letters, digits, - and _"]),
        (f"{'a' * 53}: {{image: x}}", [f"services.{'a' * 53}: its replicas and jobs would have "
         f"names like shop-{'a' * 53}-xxxxx, and a Swarm accepts at most 63 characters, not 64"]),
        (f"{'a' * 50}: {{image: x, x-mesh: {{schedule: {{cron: '@daily', command: y}}}}}}",
         [f"services.{'a' * 50}: its replicas and jobs would have names like "
         f"shop-{'a' * 50}-job-xxxxx, and a Swarm accepts at most 63 characters, not 65"]),
        ("web: {image: x, networks: [back.end]}\nnetworks: {back.end: }",
         ["networks.back.end: it would have the name shop_back.end, and a Swarm accepts only"]),
        ("web: {image: x, networks: [back-]}\nnetworks: {back-: }",
         ["networks.back-: it would have the name shop_back-, and a Swarm accepts only"]),
        (f"web: {{image: x, networks: [n]}}\nnetworks: {{n: {{name: {'n' * 64}}}}}",
         [f"networks.n: it would have the name {'n' * 64}, and a Swarm accepts at most 63"]),
        ("web: {image: x, networks: [back.end]}\nnetworks: {back.end: {name: back}}", []),
        ("web: {image: x, networks: [a]}\nnetworks: {a: {name: a.b, external: true}}", []),
        ("web: {image: x}\nnetworks: {un.used: }", []),
    ],
)  # fmt: skip
def test_names_that_a_swarm_refuses_are_named_by_their_key(
    tmp_path: Path, services: str, expected: list[str]
) -> None:
    file = tmp_path / "compose.yml"
    file.write_text(f"name: shop\nservices:\n  {services}\n")
    project = load([file], environment={}).project
    found = refused_names(project, CAPABILITIES)
    assert len(found) == len(expected)
    for text, beginning in zip(found, expected, strict=True):
        assert text.startswith(beginning)
    assert refused_names(project, replace(CAPABILITIES, swarm=False)) == []
