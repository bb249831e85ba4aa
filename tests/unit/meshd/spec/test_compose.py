"""Valid files: short and long forms, merging, variables, names and paths."""

import os
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from meshd.spec.compose import LoadedProject, load
from meshd.spec.errors import SpecError
from meshd.spec.fingerprint import compute_revision
from meshd.spec.model import (
    BackupHooks,
    Build,
    DeviceRequest,
    DrainSettings,
    Healthcheck,
    Logging,
    Mount,
    Network,
    Objective,
    PlacementSettings,
    Project,
    Quota,
    Resources,
    RestartPolicy,
    RouteSpec,
    Scale,
    Service,
    Ulimit,
    UpdateConfig,
)
from meshd.spec.model.proxy_settings import ProxySettings
from tests.support.paths import ROOT


def load_texts(directory: Path, *texts: str, **options: Any) -> LoadedProject:
    """Load the texts as files of `directory`, in order."""
    paths = []
    for index, text in enumerate(texts):
        paths.append(directory / f"compose{index}.yml")
        paths[-1].write_text(textwrap.dedent(text))
    return load(paths, environment=options.pop("environment", {}), **options)


def web(directory: Path, body: str, *, top: str = "", **options: Any) -> Service:
    """Return the service `web` with an image and `body`."""
    text = "services:\n  web:\n    image: i\n" + textwrap.indent(textwrap.dedent(body), "    ")
    result = load_texts(directory, text + "\n" + textwrap.dedent(top), **options)
    assert not result.warnings
    return result.project.service("web")


@pytest.mark.parametrize(
    ("body", "field", "expected"),
    [
        ("command: sh -c 'sleep 1; ls'", "command", ("sh", "-c", "sleep 1; ls")),
        ("command: [echo, 1, true]", "command", ("echo", "1", "true")),
        ("command:", "command", None),
        ("entrypoint: /run me", "entrypoint", ("/run", "me")),
        ("environment: [A=1, B=, C=x=y]", "environment", {"A": "1", "B": "", "C": "x=y"}),
        ("environment: {A: 1.10, B: true, C: '0x1f'}", "environment",
         {"A": "1.10", "B": "true", "C": "0x1f"}),
        ("environment: [HOME_TOWN, NOT_SET]", "environment", {"HOME_TOWN": "Ulm"}),
        ("environment: {HOME_TOWN: }", "environment", {"HOME_TOWN": "Ulm"}),
        ("expose: [8080, '9000/tcp', 9100-9102]", "expose", (8080, 9000, 9100, 9101, 9102)),
        ("ports: ['3000']", "expose", (3000,)),
        ("labels: [a=b, c]", "labels", {"a": "b", "c": ""}),
        ("stop_signal: int", "stop_signal", "SIGINT"),
        ("stop_grace_period: 1m30s", "stop_grace_period", 90.0),
        ("init: 'true'", "init", True),
        ("deploy: {mode: global}", "replicas", 1),
        ("read_only: true", "read_only", True),
        ("cap_drop: [ALL]", "cap_drop", ("ALL",)),
        ("user: 1000", "user", "1000"),
        ("scale: 3", "replicas", 3),
        ("security_opt: ['no-new-privileges:true']", "security_opt", ("no-new-privileges:true",)),
        ("group_add: [audio, 100]", "group_add", ("audio", "100")),
        ("sysctls: [a.b=1]", "sysctls", {"a.b": "1"}),
        ("ulimits: {nofile: {soft: 1, hard: 2}, core: -1}", "ulimits",
         {"nofile": Ulimit(soft=1, hard=2), "core": Ulimit(soft=-1, hard=-1)}),
        ("shm_size: 64m", "shm_size", 64 * 1024**2),
        ("extra_hosts: ['a:10.0.0.1', 'b=::1']", "extra_hosts", {"a": "10.0.0.1", "b": "::1"}),
        ("extra_hosts: {a: host-gateway}", "extra_hosts", {"a": "host-gateway"}),
        ("dns: 9.9.9.9", "dns", ("9.9.9.9",)),
        ("dns_search: [a, b]", "dns_search", ("a", "b")),
        ("logging: {driver: journald, options: {tag: x}}", "logging",
         Logging(driver="journald", options={"tag": "x"})),
        ("pull_policy: missing", "pull", "missing"),
        ("pull_policy: if_not_present", "pull", "missing"),
        ("pull_policy: always", "pull", "always"),
        ("pull_policy: never", "pull", "never"),
        ("tmpfs: /run:size=1m", "volumes", (Mount(type="tmpfs", target="/run", size=1024**2),)),
        ("volumes: [{type: tmpfs, target: /run, tmpfs: {size: 1m}}]", "volumes",
         (Mount(type="tmpfs", target="/run", size=1024**2),)),
        ("tmpfs: /run", "volumes", (Mount(type="tmpfs", target="/run"),)),
        ("tmpfs: ['/run:rw,noexec,size=16m,mode=1777']", "volumes",
         (Mount(type="tmpfs", target="/run", options="rw,noexec,size=16m,mode=1777"),)),
        ("volumes: ['/:/host:ro,rslave']", "volumes",
         (Mount(type="bind", source="/", target="/host", read_only=True, propagation="rslave"),)),
        ("volumes: [{type: bind, source: /a, target: /b, bind: {propagation: shared}}]", "volumes",
         (Mount(type="bind", source="/a", target="/b", propagation="shared"),)),
        ("volumes: [{type: bind, source: /a, target: /b, bind: {create_host_path: false}}]",
         "volumes", (Mount(type="bind", source="/a", target="/b", must_exist=True),)),
        ("tmpfs: [/run, /tmp]", "volumes",
         (Mount(type="tmpfs", target="/run"), Mount(type="tmpfs", target="/tmp"))),
        ("volumes: [/data/]", "volumes", (Mount(type="volume", target="/data"),)),
        ("volumes: [/a:/b:ro]", "volumes",
         (Mount(type="bind", source="/a", target="/b", read_only=True),)),
        ("volumes: [{type: bind, source: /a, target: /b, read_only: true}]", "volumes",
         (Mount(type="bind", source="/a", target="/b", read_only=True),)),
        ("healthcheck: {test: curl x, interval: 5s, retries: 2}", "healthcheck",
         Healthcheck(test=("CMD-SHELL", "curl x"), interval=5, retries=2,
                     inherited=("timeout", "start_period"))),
        ("healthcheck: {test: [CMD, curl, x], start_period: 1m}", "healthcheck",
         Healthcheck(test=("CMD", "curl", "x"), start_period=60,
                     inherited=("interval", "timeout", "retries"))),
        ("healthcheck: {test: [NONE]}", "healthcheck", Healthcheck(disable=True)),
        ("healthcheck: {disable: true}", "healthcheck", Healthcheck(disable=True)),
        ("restart: unless-stopped", "restart", RestartPolicy(condition="any")),
        ("restart: on-failure:3", "restart",
         RestartPolicy(condition="on-failure", max_attempts=3)),
        ("deploy: {restart_policy: {delay: 2s, max_attempts: 5}}", "restart",
         RestartPolicy(condition="any", delay=2, max_attempts=5)),
        ("deploy: {mode: replicated-job, replicas: 2}", "mode", "replicated-job"),
        ("deploy: {mode: global-job}", "replicas", 1),
        ("restart: 'no'", "restart", RestartPolicy(condition="none")),
        ("{mem_limit: 512m, cpus: 0.5, pids_limit: 50}", "resources",
         Resources(memory=512 * 1024**2, cpus=0.5, pids=50)),
        ("deploy: {resources: {limits: {cpus: '2', memory: 1g}, reservations: {memory: 64mb}}}",
         "resources", Resources(cpus=2, memory=1024**3, reserved_memory=64 * 1024**2)),
        ("deploy: {replicas: 3, update_config: {parallelism: 0, order: stop-first}}", "update",
         UpdateConfig(parallelism=3, order="stop-first")),
        ("deploy: {placement: {constraints: [node.labels.disk==ssd]}}", "placement",
         ("node.labels.disk==ssd",)),
    ],
)  # fmt: skip
def test_compose_forms(tmp_path: Path, body: str, field: str, expected: object) -> None:
    if body.startswith("{"):
        body = "\n".join(part.strip() for part in body.strip("{}").split(","))
    service = web(tmp_path, body, environment={"HOME_TOWN": "Ulm"})
    assert getattr(service, field) == expected


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        ("port: '9000'", "port", 9000),
        ("routes: /a/", "routes", (RouteSpec(path="/a"),)),
        ("routes: [API.example.com]", "routes", (RouteSpec(host="api.example.com"),)),
        ("routes: ['*.example.com/v1', {path: /x, strip: true}]", "routes",
         (RouteSpec(host="*.example.com", path="/v1"), RouteSpec(path="/x", strip=True))),
        ("scale: {max: 4, p95: 200ms}", "scale", Scale(max=4, objective=Objective(latency=0.2))),
        ("scale: {max: 4, p99.9: 1s}", "scale",
         Scale(max=4, objective=Objective(latency=1, share=99.9))),
        ("scale: {max: 4, p50: 1s}", "scale",
         Scale(max=4, objective=Objective(latency=1, share=50))),
        ("scale: {min: 3}", "scale", Scale(min=3, max=3)),
        ("drain: 2m", "drain", DrainSettings(requests=120.0)),
        ("placement: pack", "placement", PlacementSettings(strategy="pack")),
        ("drain: {tunnels: 2h}", "drain", DrainSettings(tunnels=7200.0)),
        ("allow: web", "allow", ("web",)),
        ("allow: []", "allow", ()),
    ],
)  # fmt: skip
def test_x_mesh_forms(tmp_path: Path, text: str, field: str, expected: object) -> None:
    assert getattr(web(tmp_path, f"x-mesh: {{{text}}}").mesh, field) == expected


def test_services_that_are_kept_apart_both_say_so(tmp_path: Path) -> None:
    text = """
    services:
      web: {image: i}
      db: {image: i, x-mesh: {placement: {apart_from: [standby, web]}}}
      standby: {image: i, x-mesh: {placement: {apart_from: db}}}
    """
    project = load_texts(tmp_path, textwrap.dedent(text)).project
    apart = {each.name: each.mesh.placement.apart_from for each in project.services}
    assert apart == {"web": ("db",), "db": ("standby", "web"), "standby": ("db",)}


@pytest.mark.parametrize(
    ("text", "kind", "path"),
    [
        ("/ready?full=1", "http", "/ready?full=1"),
        ("tcp", "tcp", "/healthz"),
        ("none", "none", "/healthz"),
        ("{path: /x, interval: 500ms}", "http", "/x"),
    ],
)
def test_health_forms(tmp_path: Path, text: str, kind: str, path: str) -> None:
    health = web(tmp_path, f"x-mesh: {{health: {text}}}").mesh.health
    assert (health.type, health.path) == (kind, path)


def test_balance_is_an_algorithm_or_a_mapping(tmp_path: Path) -> None:
    assert web(tmp_path, "x-mesh: {balance: maglev}").mesh.balance.algorithm == "maglev"
    body = "x-mesh: {balance: {algorithm: ring-hash, hash_by: 'cookie:sid'}}"
    assert web(tmp_path, body).mesh.balance.hash_by == "cookie:sid"


def test_replicas_and_scale_agree(tmp_path: Path) -> None:
    assert web(tmp_path, "x-mesh: {scale: {min: 2, max: 5}}").replicas == 2
    both = web(tmp_path, "deploy: {replicas: 3}\nx-mesh: {scale: {max: 5}}")
    assert (both.replicas, both.mesh.scale) == (3, Scale(min=3, max=5))


def test_the_port_comes_from_x_mesh_then_expose_then_ports(tmp_path: Path) -> None:
    assert web(tmp_path, "expose: [1]\nx-mesh: {port: 2}").port == 2
    assert web(tmp_path, "ports: [3]\nexpose: [1]").port == 1
    assert web(tmp_path, "ports: [3]").port == 3
    assert web(tmp_path, "").port == 8080


def test_relative_paths_start_at_the_directory_of_the_first_file(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "more").mkdir()
    (tmp_path / "key").write_text("k")
    first, second = tmp_path / "compose.yml", tmp_path / "app" / "more" / "over.yml"
    first.write_text("services:\n  web:\n    build: ./app\n    volumes: ['./data:/data']\n")
    second.write_text(
        "services:\n  web:\n    build: {args: {A: 1}}\n    secrets: [key]\n"
        "secrets:\n  key: {file: ./key}\n"
    )

    project = load([first, second], environment={}).project

    service = project.service("web")
    assert service.build == Build(context=str(tmp_path / "app"), args={"A": "1"})
    data, key = service.volumes
    assert data == Mount(type="bind", source=str(tmp_path / "data"), target="/data")
    assert (key.source, key.target) == (str(tmp_path / "key"), "/run/secrets/key")
    assert key.read_only
    assert project.source == str(first)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("hostname: box\ndomainname: d", {"hostname": "box", "domainname": "d"}),
        ("cpuset: 0,1\ncpu_shares: 512", {"cpuset": "0,1", "cpu_shares": 512}),
        ("cpu_period: 100ms\ncpu_quota: 50000", {"cpu_period": 100_000, "cpu_quota": 50_000}),
        ("cpu_rt_period: '1000'\ncpu_rt_runtime: 400us",
         {"cpu_rt_period": 1000, "cpu_rt_runtime": 400}),
        ("memswap_limit: 1g\nmem_swappiness: 0", {"memswap_limit": 2**30, "mem_swappiness": 0}),
        ("memswap_limit: -1\noom_score_adj: -500\noom_kill_disable: true",
         {"memswap_limit": -1, "oom_score_adj": -500, "oom_kill_disable": True}),
        ("ipc: host\npid: host\nuts: host\ncgroup: private\nuserns_mode: host",
         {"ipc": "host", "pid": "host", "uts": "host", "cgroup": "private", "userns_mode": "host"}),
        ("cgroup_parent: p\nruntime: runsc\nstorage_opt: {size: 1G}",
         {"cgroup_parent": "p", "runtime": "runsc", "storage_opt": {"size": "1G"}}),
        ("devices: ['/dev/a:/dev/b:r', /dev/c, {source: /dev/d, target: /dev/e}]",
         {"devices": ("/dev/a:/dev/b:r", "/dev/c:/dev/c:rwm", "/dev/d:/dev/e:rwm")}),
        ("device_cgroup_rules: ['c 1:* r']", {"device_cgroup_rules": ("c 1:* r",)}),
        ("gpus: all", {"gpus": (DeviceRequest(count=-1),)}),
        ("gpus: [{driver: nvidia, count: 2}, {device_ids: ['0'], capabilities: [utility]}]",
         {"gpus": (DeviceRequest(driver="nvidia", count=2),
                   DeviceRequest(device_ids=("0",), capabilities=("gpu", "utility")))}),
    ],
)  # fmt: skip
def test_options_of_the_engine(tmp_path: Path, body: str, expected: dict[str, Any]) -> None:
    options = web(tmp_path, body).options
    assert {name: getattr(options, name) for name in expected} == expected
    assert options.model_fields_set == expected.keys()


@pytest.mark.parametrize(
    ("entry", "ports"),
    [
        ("'80'", ["80/tcp"]),
        ("'8080:80'", ["8080:80/tcp"]),
        ("'127.0.0.1:8080:80/tcp'", ["127.0.0.1:8080:80/tcp"]),
        ("'[::1]:8080:80'", ["[::1]:8080:80/tcp"]),
        ("'127.0.0.1::80'", ["127.0.0.1:80/tcp"]),
        ("'5353:53/udp'", ["5353:53/udp"]),
        ("3000-3001", ["3000/tcp", "3001/tcp"]),
        ("'9090-9091:8080-8081'", ["9090:8080/tcp", "9091:8081/tcp"]),
        ("'9090-9099:8080'", ["9090-9099:8080/tcp"]),
        ("{target: 80, published: '8080', host_ip: 10.0.0.1}", ["10.0.0.1:8080:80/tcp"]),
        ("{target: 80, published: 8080-8090}", ["8080-8090:80/tcp"]),
        ("{target: 53, protocol: udp, mode: host}", ["53/udp"]),
    ],
)
def test_published_ports(tmp_path: Path, entry: str, ports: list[str]) -> None:
    service = web(tmp_path, f"ports: [{entry}]")
    assert [str(port) for port in service.ports] == ports
    tcp = [port.target for port in service.ports if port.protocol == "tcp"]
    assert service.expose == tuple(tcp)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("'1-3:8080-8081'", "3 host ports are given for 2 ports of the replica"),
        ("'localhost:80:80'", "'localhost' is not an IP address"),
        ("'80:70000'", "'70000' is out of range"),
    ],
)
def test_published_ports_that_are_refused(tmp_path: Path, entry: str, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        web(tmp_path, f"ports: [{entry}]")


def test_exposed_ports_of_other_protocols_are_not_ports_of_the_mesh(tmp_path: Path) -> None:
    assert web(tmp_path, "expose: [9/sctp, 80, 53/udp]").expose == (80,)


def test_a_service_is_plain_without_x_mesh(tmp_path: Path) -> None:
    text = """
        services:
          db: {image: i}
          api: {image: i, x-mesh: {}}
          web: {image: i, labels: {mesh.route: /}}
          old: {image: i, labels: [other.label=1]}
        """
    services = load_texts(tmp_path, text).project.services
    assert [each.plain for each in services] == [True, False, False, True]
    assert [each.update_order for each in services[:2]] == ["stop-first", "start-first"]
    assert [each.probe.type for each in services[:2]] == ["none", "http"]


@pytest.mark.parametrize(
    ("body", "port"),
    [
        ("environment: {PORT: 3000}", 3000),
        ("environment: {PORT: 3000}\nexpose: [9000]", 9000),
        ("environment: {PORT: none}", 8080),
        ("environment: {PORT: 70000}", 8080),
        ("environment: {PORT: 3000}\nx-mesh: {port: 9000}", 9000),
    ],
)
def test_the_main_port_and_the_variable(tmp_path: Path, body: str, port: int) -> None:
    text = textwrap.indent(body if "x-mesh" in body else f"{body}\nx-mesh: {{}}", "    ")
    loaded = load_texts(tmp_path, f"services:\n  web:\n    image: i\n{text}\n")
    assert loaded.project.service("web").port == port


def test_ports_that_are_not_http(tmp_path: Path) -> None:
    service = web(tmp_path, "expose: [5432, 80]\nx-mesh: {tcp: 5432}")
    assert service.mesh_ports == (5432, 80)
    assert service.probe.type == "tcp"


def test_a_tcp_port_with_policies(tmp_path: Path) -> None:
    service = web(tmp_path, "x-mesh: {tcp: [{port: 5432, parking: {timeout: 9s}}, 6379]}")
    stored = service.model_dump(mode="json")["mesh"]["tcp"]
    # As earlier versions stored it, where nothing is new.
    assert (stored[0]["port"], stored[0]["parking"]["timeout"], stored[1]) == (5432, 9.0, 6379)
    assert Service.model_validate_json(service.model_dump_json()) == service
    assert service.passthrough_ports == (5432, 6379)
    assert service.mesh.for_port(5432).parking.timeout == 9.0
    assert service.mesh.for_port(6379) is service.mesh
    alone = web(tmp_path, "x-mesh: {tcp: {port: 5432, balance: random}}")
    assert alone.port == 5432
    assert alone.mesh.for_port(5432).balance.algorithm == "random"


def test_server_names_of_a_published_port(tmp_path: Path) -> None:
    service = web(
        tmp_path, "ports: ['443:5432']\nx-mesh: {tcp: [{port: 5432, sni: DB.Example.com}]}"
    )
    assert service.mesh.tcp is not None
    assert service.mesh.tcp[0].sni == ("db.example.com",)
    assert Service.model_validate_json(service.model_dump_json()) == service
    assert service.mesh.for_port(5432) is service.mesh
    for settings, said in (
        ("x-mesh: {tcp: [{port: 5432, sni: a.test}]}", 'add it to ports, e.g. "443:5432"'),
        (
            "ports: ['443:1']\nx-mesh: {tcp: [{port: 1, sni: '*'}]}",
            "'*' means no sni; leave it out",
        ),
        ("ports: ['443:1']\nx-mesh: {tcp: [{port: 1, sni: 'a b'}]}", "'a b' is not a valid host"),
    ):
        with pytest.raises(SpecError) as raised:
            web(tmp_path, settings)
        assert said in str(raised.value)


@pytest.mark.parametrize(
    ("tcp", "said"),
    [
        ("web", "web: x-mesh.tcp: 'web' is not valid; expected a whole number"),
        ("[99999]", "web: x-mesh.tcp[0]: 99999 is not valid; expected at most 65535"),
        ("{port: 1, blance: random}", "x-mesh.tcp.blance: unknown key; did you mean balance?"),
        ("[{port: 1, timeouts: {tunnel: x}}]", "x-mesh.tcp[0].timeouts.tunnel: 'x' is not"),
        ("[{balance: random}]", "x-mesh.tcp[0]: port is missing; expected a value"),
        ("[1, {port: 1, balance: random}]", "port 1 is given twice with different policies"),
    ],
)
def test_mistakes_in_tcp_ports(tmp_path: Path, tcp: str, said: str) -> None:
    with pytest.raises(SpecError) as raised:
        web(tmp_path, f"x-mesh: {{tcp: {tcp}}}")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("body", "passed", "probe"),
    [
        ("expose: [5432]\nx-mesh: {}", (5432,), "tcp"),
        ("expose: [80, 6379]\nx-mesh: {}", (6379,), "http"),
        ("expose: [5432]\nx-mesh: {tcp: []}", (), "http"),
        ("expose: [5432, 9]\nx-mesh: {tcp: 9}", (9,), "http"),
        ("expose: [5432]\nx-mesh: {health: none}", (5432,), "none"),
        ("expose: [5432]", (), "none"),
    ],
)
def test_ports_of_well_known_protocols_are_passed_on(
    tmp_path: Path, body: str, passed: tuple[int, ...], probe: str
) -> None:
    service = web(tmp_path, body)
    assert service.passthrough_ports == passed
    assert service.probe.type == probe


@pytest.mark.parametrize(
    ("policy", "probe", "port"),
    [
        ("{tcp: 5432}", "tcp", 5432),
        ("{tcp: [5432, 6000]}", "tcp", 5432),
        ("{tcp: 5432, port: 8000}", "http", 8000),
        ("{tcp: 5432, health: {interval: 2s}}", "tcp", 5432),
        ("{tcp: 5432, health: /healthz}", "http", 5432),
        ("{tcp: 5432, health: {path: /status}}", "http", 5432),
        ("{tcp: 5432, health: none}", "none", 5432),
        ("{health: tcp}", "tcp", 8080),
    ],
)
def test_the_probe_of_a_port_that_is_not_http(
    tmp_path: Path, policy: str, probe: str, port: int
) -> None:
    read = web(tmp_path, f"x-mesh: {policy}")
    stored = Service.model_validate_json(read.model_dump_json())
    for service in (read, stored):
        assert (service.probe.type, service.port) == (probe, port)


def test_volumes_of_other_names_and_of_others(tmp_path: Path) -> None:
    body = "volumes: ['aa:/a:nocopy', 'bb:/b', 'cc:/c', {type: volume, source: dd, target: /d}]"
    top = "volumes: {aa: {name: shop-a}, bb: {external: true}, cc: {external: {name: old}}, dd: }"
    service = web(tmp_path, body, top=top)
    assert service.volumes == (
        Mount(type="volume", source="aa", target="/a", nocopy=True, volume_name="shop-a"),
        Mount(type="volume", source="bb", target="/b", volume_name="bb", external=True),
        Mount(type="volume", source="cc", target="/c", volume_name="old", external=True),
        Mount(type="volume", source="dd", target="/d"),
    )


def test_networks_of_other_names_and_of_others(tmp_path: Path) -> None:
    text = """
        services:
          web: {image: i, networks: [default, b, c]}
          api: {image: i}
        networks: {default: {name: shop-net}, b: {external: true, name: theirs}, c: }
        """
    project = load_texts(tmp_path, text).project
    assert project.networks == (
        Network(name="default", engine_name="shop-net"),
        Network(name="b", engine_name="theirs", external=True),
        Network(name="c"),
    )
    assert project.service("web").network_names == {"default": "shop-net", "b": "theirs"}
    assert project.service("api").network_names == {"default": "shop-net"}


def test_secrets_and_configs_with_a_text_or_a_variable(tmp_path: Path) -> None:
    body = "secrets: [s, {source: s, target: t, uid: '5', gid: 6, mode: 0440}]\nconfigs: [c]"
    top = "secrets: {s: {environment: TOKEN}}\nconfigs: {c: {content: 'a=${N}'}}"
    service = web(tmp_path, body, top=top, environment={"TOKEN": "hush", "N": "1"})
    file = {"type": "file", "read_only": True}
    assert [mount.model_dump(exclude_defaults=True) for mount in service.volumes] == [
        {**file, "target": "/run/secrets/s", "content": "hush", "mode": 0o444},
        {**file, "target": "/run/secrets/t", "content": "hush", "mode": 0o440, "uid": 5, "gid": 6},
        {**file, "target": "/c", "content": "a=1", "mode": 0o444},
    ]


def test_the_owner_of_a_file_of_the_host_has_no_effect(tmp_path: Path) -> None:
    text = """
        services: {web: {image: i, configs: [{source: c, target: /c, mode: 0o400}]}}
        configs: {c: {file: ./compose0.yml}}
        """
    (warning,) = load_texts(tmp_path, text).warnings
    assert "configs[0].mode: this key has no effect on a file of the host" in str(warning)


@pytest.mark.parametrize(
    ("body", "context", "inline"),
    [
        ("build: 'https://example.test/x.git#main:sub'", "https://example.test/x.git#main:sub", ""),
        ("build: {context: 'git@example.test:x.git'}", "git@example.test:x.git", ""),
        ("build: {dockerfile_inline: FROM x}", "DIR", "FROM x"),
        ("build: {}", "DIR", ""),
    ],
)
def test_build_contexts(tmp_path: Path, body: str, context: str, inline: str) -> None:
    build = web(tmp_path, body).build
    assert build is not None
    assert build.context == context.replace("DIR", str(tmp_path))
    assert build.dockerfile_inline == inline
    assert build.is_remote == (context != "DIR")


def test_changed_configs_and_secrets_change_the_revision(tmp_path: Path) -> None:
    body = "secrets: [key]\nconfigs: [menu]"
    top = "secrets: {key: {file: ./key}}\nconfigs: {menu: {file: ./menu}}"
    key, menu = tmp_path / "key", tmp_path / "menu"
    key.write_text("hush")
    menu.write_text("pizza")

    def now() -> str:
        return compute_revision(web(tmp_path, body, top=top))

    first = now()
    menu.touch()
    assert now() == first
    menu.write_text("pasta")
    second = now()
    os.utime(key, ns=(1, 1))
    assert len({first, second, now()}) == 3


def test_proxy_settings_are_at_the_top_level(tmp_path: Path) -> None:
    file = tmp_path / "compose.yml"
    file.write_text(
        "services: {web: {image: i}}\n"
        "x-mesh: {trusted_proxies: '${NET}', access_log: on}\nx-other: ${kept}\n"
    )
    settings = load([file], environment={"NET": "10.0.0.0/8"}).proxy_settings
    assert settings.trusted_proxies == ("10.0.0.0/8",)
    assert (settings.access_log.mode, settings.access_log.format) == ("on", "json")
    file.write_text("services: {web: {image: i}}\n")
    assert load([file], environment={}).proxy_settings == ProxySettings()


def test_the_quota_of_a_project_is_at_the_top_level(tmp_path: Path) -> None:
    file = tmp_path / "compose.yml"
    file.write_text(
        "services: {web: {image: i}}\nx-mesh: {access_log: on, quota: {cpus: 2, memory: 1g}}\n"
    )
    found = load([file], environment={})
    assert found.project.quota == Quota(cpus=2, memory=2**30)
    assert found.proxy_settings.access_log.mode == "on"
    file.write_text("services: {web: {image: i}}\nx-mesh: {quota: {ram: 1g}}\n")
    with pytest.raises(SpecError, match="ram"):
        load([file], environment={})


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert('{trace_id}')",
        "http://viewer/trace/",
        "viewer/{trace_id}",
        "http:{trace_id}",
    ],
)
def test_the_address_of_traces_is_at_the_top_level(tmp_path: Path, url: str) -> None:
    file = tmp_path / "compose.yml"
    good = "http://127.0.0.1:16686/trace/{trace_id}"
    text = "services: {web: {image: i}}\nx-mesh: {trace_url: "
    file.write_text(f'{text}"{good}"}}\n')
    assert load([file], environment={}).project.trace_url == good
    file.write_text(f'{text}"{url}"}}\n')
    with pytest.raises(SpecError, match="not a valid URL of a trace"):
        load([file], environment={})


def test_backup_hooks_are_at_the_top_level_and_keep_a_service_plain(tmp_path: Path) -> None:
    file = tmp_path / "compose.yml"
    services = """
services:
  db: {image: i, volumes: ["data:/d"]}
  cache: {image: i, volumes: ["data:/d"]}
  tools: {image: i, profiles: [tools]}
  web: {image: i}
volumes: {data: {}}
"""
    file.write_text(
        services
        + """
x-mesh:
  backups:
    db: {quiesce: "lock 'the db'", resume: [unlock, now], user: root, timeout: 2m}
    cache: redis-cli save
    tools: [ignored]
"""
    )
    found = load([file], environment={}).project
    assert found.backups == {
        "db": BackupHooks(
            quiesce=("lock", "the db"), resume=("unlock", "now"), user="root", timeout=120.0
        ),
        "cache": BackupHooks(quiesce=("redis-cli", "save")),
    }
    assert all(service.plain for service in found.services)
    assert Project.model_validate_json(found.model_dump_json()) == found
    file.write_text(services)
    without = load([file], environment={}).project
    assert [compute_revision(each) for each in without.services] == [
        compute_revision(each) for each in found.services
    ]


@pytest.mark.parametrize(
    ("hooks", "problem"),
    [
        ("{dbb: save}", "the service 'dbb' does not exist; did you mean db?"),
        ("{web: save}", "service web mounts no named volume; expected a service with one"),
        ("{db: {resume: x}}", "quiesce is missing; expected a value"),
        ("{db: {quiesce: x, resum: y}}", "unknown key; did you mean resume?"),
        ("{db: {quiesce: x, timeout: 0s}}", "expected greater than 0"),
        ("{db: ''}", "the command is empty; expected the command to run"),
        ('{db: "sh -c \'x"}', "No closing quotation"),
        ("{db: 3}", "3 is not a command; expected one, or a mapping with quiesce"),
        ("[db]", "expected a mapping"),
    ],
)
def test_a_wrong_backup_hook_is_an_error(tmp_path: Path, hooks: str, problem: str) -> None:
    file = tmp_path / "compose.yml"
    file.write_text(
        "services: {db: {image: i, volumes: ['data:/d']}, web: {image: i, volumes: ['/a']}}\n"
        f"volumes: {{data: {{}}}}\nx-mesh:\n  backups: {hooks}\n"
    )
    with pytest.raises(SpecError) as caught:
        load([file], environment={})
    assert problem in str(caught.value)
    assert "4: x-mesh.backups" in str(caught.value)


def test_networks(tmp_path: Path) -> None:
    result = load_texts(
        tmp_path,
        """
        services:
          a: {image: i, networks: [back]}
          b: {image: i, networks: {back: {aliases: [store]}, default: }}
          c: {image: i}
        networks:
          back: {internal: true, driver: bridge}
        """,
    )
    project = result.project
    assert project.networks == (Network(name="back", internal=True), Network(name="default"))
    assert [s.networks for s in project.services] == [
        ("back",),
        ("back", "default"),
        ("default",),
    ]
    assert project.service("b").aliases == {"back": ("store",)}


def test_services_without_networks_join_a_declared_default_network(tmp_path: Path) -> None:
    assert web(tmp_path, "", top="networks: {default: {internal: true}}").networks == ("default",)


def test_depends_on(tmp_path: Path) -> None:
    result = load_texts(
        tmp_path,
        """
        services:
          a: {image: i, depends_on: [b]}
          b:
            image: i
            depends_on:
              c: {condition: service_healthy}
              d: {condition: service_started, required: false}
          c: {image: i}
          d: {image: i, profiles: [extra]}
        """,
    )
    project = result.project
    assert project.service("a").depends_on == ("b",)
    assert (project.service("b").depends_on, project.service("b").wait_healthy) == (("c",), ("c",))


def test_profiles(tmp_path: Path) -> None:
    text = """
        services:
          a: {image: i}
          b: {image: i, profiles: [extra, more]}
        """

    def names(**options: Any) -> list[str]:
        return [service.name for service in load_texts(tmp_path, text, **options).project.services]

    assert names() == ["a"]
    assert names(profiles=["more"]) == ["a", "b"]
    assert names(profiles=["*"]) == ["a", "b"]
    assert names(environment={"COMPOSE_PROFILES": "*"}) == ["a", "b"]
    assert names(environment={"COMPOSE_PROFILES": "x,extra"}) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "environment", "text", "expected"),
    [
        ("arg", {"COMPOSE_PROJECT_NAME": "env"}, "name: file\n", "arg"),
        (None, {"COMPOSE_PROJECT_NAME": "env"}, "name: file\n", "env"),
        (None, {}, "name: file\n", "file"),
        (None, {"N": "x"}, "name: file-${N}\n", "file-x"),
        (None, {}, "name: My.Shop\n", "myshop"),
        (None, {}, "", "myshop_v2"),
    ],
)
def test_the_source_of_the_project_name(
    tmp_path: Path, given: str | None, environment: dict[str, str], text: str, expected: str
) -> None:
    directory = tmp_path / "My Shop_v2-"
    directory.mkdir()
    body = text + "services: {web: {image: i}}\n"
    result = load_texts(directory, body, project=given, environment=environment)
    assert result.project.name == expected


def test_the_project_name_is_a_variable(tmp_path: Path) -> None:
    text = "name: Shop\nservices: {web: {image: 'i:${COMPOSE_PROJECT_NAME}'}}\n"
    assert load_texts(tmp_path, text).project.services[0].image == "i:shop"


def test_other_env_files_replace_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nB=1\n")
    one, two = tmp_path / "one.env", tmp_path / "two.env"
    one.write_text("A=2\nC=3\n")
    two.write_text("C=$A$C\n")
    body = "services: {web: {image: 'i:${A}-${B:-none}-${C}'}}\n"
    found = load_texts(tmp_path, body, env_files=[one, two]).project.services[0]
    assert found.image == "i:2-none-23"
    with pytest.raises(SpecError, match=r"none\.env: no such file"):
        load_texts(tmp_path, body, env_files=[tmp_path / "none.env"])


@pytest.mark.parametrize("word", ["y", "Yes", "on"])
def test_old_words_for_booleans_have_a_warning(tmp_path: Path, word: str) -> None:
    opposite = {"y": "n", "Yes": "no", "on": "off"}[word]
    text = f"services: {{web: {{image: i, init: {word}, read_only: {opposite}}}}}\n"
    loaded = load_texts(tmp_path, text)
    assert (loaded.project.services[0].init, loaded.project.services[0].read_only) == (True, False)
    assert [each.field for each in loaded.warnings] == ["init", "read_only"]
    assert f"{word!r} is an old form; write true" in str(loaded.warnings[0])


def test_a_container_name_allows_one_replica(tmp_path: Path) -> None:
    text = "services: {web: {image: i, container_name: box, deploy: {replicas: 2}}}\n"
    with pytest.raises(SpecError, match="container_name: 2 replicas cannot share a name"):
        load_texts(tmp_path, text)


def test_anchors_and_merge_keys(tmp_path: Path) -> None:
    result = load_texts(
        tmp_path,
        """
        x-base: &base
          image: base
          environment: &env {A: 1, B: 2}
        x-limits: &limits {mem_limit: 1g, image: never}
        services:
          web:
            <<: [*base, *limits]
            environment:
              <<: *env
              B: 3
        """,
    )
    service = result.project.service("web")
    assert (service.image, service.resources.memory) == ("base", 1024**3)
    assert service.environment == {"A": "1", "B": "3"}


@pytest.mark.parametrize(
    ("networks", "allow", "warned"),
    [
        ("", "[b]", "c, d, e and 1 more can connect to the replicas of a directly"),
        (
            "",
            "[b, c, d, e]",
            "f can connect to the replicas of a directly",
        ),
        ("", "[b, c, d, e, f]", ""),
        (
            "networks: [back]",
            "[]",
            "b can connect to the replicas of a directly",
        ),
        ("networks: [back]", "[b]", ""),
        ("networks: [own]", "[]", ""),
        ("", "[], audit: true", ""),
        ("", "[], enforce: true", ""),
    ],
)
def test_where_allow_can_be_bypassed(
    tmp_path: Path, networks: str, allow: str, warned: str
) -> None:
    text = (
        f"services:\n  a: {{image: i, x-mesh: {{allow: {allow}}}, {networks}}}\n"
        "  b: {image: i, networks: [back, default], x-mesh: {}}\n"
        "  c: {image: i}\n  d: {image: i}\n  e: {image: i}\n  f: {image: i}\n"
        "networks: {back: {}, own: {}}\n"
    )
    warnings = load_texts(tmp_path, text).warnings
    assert len(warnings) == bool(warned)
    if warned:
        assert warned in str(warnings[0])
        assert str(warnings[0]).startswith(f"{tmp_path}/compose0.yml:2: service a: x-mesh.allow: ")


def test_files_merge_by_the_rules_of_the_specification(tmp_path: Path) -> None:
    result = load_texts(
        tmp_path,
        """
        services:
          web:
            image: one
            command: [a, b]
            environment: [A=1, B=2]
            labels: {l: 1}
            expose: [1, 2]
            volumes: ['./x:/data', './y:/more']
            depends_on: [db]
            healthcheck: {test: [CMD, a], interval: 5s}
            cap_add: [X]
            cap_drop: [Y]
            x-mesh: {routes: [/a], scale: {min: 1, max: 2}}
          db: {image: db}
        """,
        """
        services:
          web:
            image: two
            command: c
            environment: {B: 3, C: 4}
            labels: [m=2]
            expose: [2, 3]
            volumes: ['/z:/data:ro']
            depends_on: {db: {condition: service_healthy}}
            healthcheck: {test: [CMD, b]}
            cap_add: !override [Z]
            cap_drop: !reset []
            x-mesh: {routes: [/b], scale: {max: 9}}
        """,
    )
    service = result.project.service("web")
    assert service.image == "two"
    assert service.command == ("c",)
    assert service.environment == {"A": "1", "B": "3", "C": "4"}
    assert service.labels == {"l": "1", "m": "2"}
    assert service.expose == (1, 2, 3)
    assert service.volumes == (
        Mount(type="bind", source="/z", target="/data", read_only=True),
        Mount(type="bind", source=str(tmp_path / "y"), target="/more"),
    )
    assert (service.depends_on, service.wait_healthy) == (("db",), ("db",))
    assert service.healthcheck == Healthcheck(
        test=("CMD", "b"), interval=5, inherited=("timeout", "retries", "start_period")
    )
    assert (service.cap_add, service.cap_drop) == (("Z",), ())
    assert [str(route) for route in service.mesh.routes] == ["/a", "/b"]
    assert service.mesh.scale == Scale(min=1, max=9)


def test_the_environment_overrides_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TAG=1\nPORT_IN=8000\n# note\nexport NAME='a b' # why\n")
    service = web(
        tmp_path,
        "environment: {T: '${TAG}', N: $NAME, P: '$${TAG}'}\nexpose: ['${PORT_IN}']",
        environment={"TAG": "2"},
    )
    assert service.environment == {"T": "2", "N": "a b", "P": "${TAG}"}
    assert service.port == 8000


def test_environment_overrides_env_files(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text('A=1\nB="two\\n$A"\nC=${NOPE:-c}\n')
    (tmp_path / "b.env").write_text("A=9\n")
    body = """
        env_file:
          - a.env
          - {path: b.env}
          - {path: none.env, required: false}
        environment: {C: 3}
        """
    assert web(tmp_path, body).environment == {"A": "9", "B": "two\n1", "C": "3"}


def test_mesh_labels_of_a_service_replace_x_mesh(tmp_path: Path) -> None:
    body = """
        labels:
          mesh.route: /a, /b
          mesh.scale.max: 3
          mesh.port: 9000
          team: food
        """
    service = web(tmp_path, body)
    assert service.labels == {"team": "food"}
    assert (service.port, service.mesh.scale) == (9000, Scale(max=3))
    assert [route.path for route in service.mesh.routes] == ["/a", "/b"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "container_name: x1\n    x-mesh: {}",
            "4: service web: container_name: the container of a service with x-mesh has its own",
        ),
        (
            "privileged: true\n    x-mesh: {}",
            "4: service web: privileged: a privileged replica can bypass the mesh, so that allow",
        ),
        ("attach: false", "4: service web: attach: this key has no effect; "),
        (
            "deploy: {endpoint_mode: vip}",
            "4: service web: deploy.endpoint_mode: endpoint_mode: vip has no effect: the name of a",
        ),
        ("working_dir: $NOPE", "4: service web: working_dir: the variable NOPE is not set"),
        (
            "command: serve $PORT",
            "4: service web: command: the variable PORT is not set; it becomes "
            "empty; write sh -c '… $$PORT' to use the value set in the replica",
        ),
        ("x-meshd: {}", "4: service web: x-meshd: this key has no effect; did you mean x-mesh?"),
        (
            "environment: {PORT: 1}\n    x-mesh: {port: 2}",
            "2: service web: environment sets PORT to '1', but the mesh sends requests to port 2; ",
        ),
    ],
)
def test_keys_without_effect_are_warnings(tmp_path: Path, body: str, message: str) -> None:
    text = f"services:\n  web:\n    image: i\n    {body}\n"
    result = load_texts(tmp_path, text)
    assert len(result.warnings) == 1
    assert str(result.warnings[0]).startswith(f"{tmp_path}/compose0.yml:{message}")


def test_the_demo_application_loads() -> None:
    root = ROOT
    result = load([root / "demo_services" / "compose.yml"], environment={})
    assert not result.warnings
    assert result.project.name == "food"
    assert result.project.service("payments").mesh.allow == ("orders",)


@pytest.mark.parametrize(
    ("keys", "condition"),
    [
        ("{}", "none"),
        ("{restart: always}", "any"),
        ("{x-mesh: {}}", "any"),
        ("{x-mesh: {}, restart: 'no'}", "none"),
        ("{deploy: {mode: replicated-job}}", "on-failure"),
        ("{deploy: {mode: replicated-job}, restart: 'no'}", "none"),
        ("{deploy: {restart_policy: {window: 1s}}}", "any"),
    ],
)
def test_when_a_replica_that_ended_is_restarted(tmp_path: Path, keys: str, condition: str) -> None:
    path = tmp_path / "compose.yml"
    path.write_text(f"services:\n  web: {{image: i, <<: {keys}}}\n")
    (service,) = load([path], environment={}).project.services
    assert service.restart_condition == condition


def test_conditions_of_dependencies(tmp_path: Path) -> None:
    path = tmp_path / "compose.yml"
    path.write_text(
        """
services:
  web:
    image: i
    depends_on:
      db: {condition: service_healthy, restart: true}
      migrate: {condition: service_completed_successfully}
      mail: {condition: service_started, required: false}
  db: {image: i}
  migrate: {image: i}
  mail: {image: i}
"""
    )
    web = load([path], environment={}).project.services[0]
    assert web.depends_on == ("db", "migrate", "mail")
    assert (web.wait_healthy, web.wait_completed) == (("db",), ("migrate",))
    assert (web.optional_dependencies, web.restart_with) == (("mail",), ("db",))


@pytest.mark.parametrize(
    ("keys", "cause"), [("restart: always", "by its restart policy"), ("x-mesh: {}", "x-mesh")]
)
def test_a_dependency_that_never_completes_is_a_warning(
    tmp_path: Path, keys: str, cause: str
) -> None:
    path = tmp_path / "compose.yml"
    path.write_text(
        "services:\n  web: {image: i, depends_on: {db: "
        "{condition: service_completed_successfully}}}\n"
        f"  db: {{image: i, {keys}}}\n"
    )
    (warning,) = load([path], environment={}).warnings
    assert "never completes; set restart: 'no' for db" in str(warning)
    assert cause in str(warning)


def test_a_secret_that_is_not_used_may_be_missing(tmp_path: Path) -> None:
    text = """
    services:
      web: {image: i}
      job: {image: i, secrets: [key], profiles: [job]}
    secrets:
      key: {file: ./none}
      other: {environment: NOT_SET}
      swarm: {external: true}
    """
    assert load_texts(tmp_path, text).project.service("web").volumes == ()
    with pytest.raises(SpecError, match=r"secrets\.key\.file: .*none is not a file"):
        load_texts(tmp_path, text, profiles=["job"])


@pytest.mark.parametrize(
    ("policy", "pull"),
    [
        ("if_not_present", "missing"),
        ("build", "missing"),
        ("daily", "always"),
        ("every_2d12h", "always"),
        ("never", "never"),
    ],
)
def test_pull_policies(tmp_path: Path, policy: str, pull: str) -> None:
    assert web(tmp_path, f"pull_policy: {policy}").pull == pull
