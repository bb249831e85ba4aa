"""Applications as Compose users write them: each loads without an error, unchanged, as plain
services. They have the shapes of well-known applications: a mail server, a video conference, a
workflow engine, a monitoring stack, a shop."""

from pathlib import Path
from textwrap import dedent

import pytest

from meshd.spec.canonical import build_canonical
from meshd.spec.compose import LoadedProject, load
from meshd.spec.model import AddressPool, Attachment, Service

MAIL = """
services:
  resolver:
    image: example/resolver:1.2
    environment: ["TZ=${TZ}"]
    volumes: [./conf/hooks:/hooks:Z, "./conf/r.conf:/etc/r.conf:ro,Z"]
    restart: always
    tty: true
    healthcheck: {test: ["CMD", "check"], interval: 30s}
    networks:
      mail:
        ipv4_address: ${NETWORK:-172.22.7}.254
        aliases: [dns]
  smtp:
    image: example/smtp:3
    depends_on: {resolver: {condition: service_healthy}, db: {condition: service_started}}
    dns: ["${NETWORK:-172.22.7}.254"]
    volumes: ["./ssl:/etc/ssl/mail:ro,z", "spool:/var/spool:z", "sockets:/var/run/db"]
    ports: ["${SMTP:-25}:25", "${BIND-}:465:465", "127.0.0.1:${NONE:-13306}:3306"]
    cap_add: [NET_BIND_SERVICE]
    ulimits: {nofile: {soft: 20000, hard: 40000}}
    labels:
      scheduler.enabled: "true"
      scheduler.job-exec.command: /bin/sh -c "[ $${MASTER} == y ] && run || exit 0"
    networks: {mail: {ipv4_address: "172.22.7.253", aliases: [smtp-mail]}}
  db:
    image: mariadb:10
    stop_grace_period: 45s
    volumes: ["data:/var/lib/mysql", "sockets:/var/run/mysqld"]
    environment: {MYSQL_PASSWORD: "${DBPASS}", BLANK: }
    networks: {mail: {aliases: [mysql]}}
  firewall:
    image: example/firewall:1
    restart: always
    privileged: true
    network_mode: host
    volumes: ["/lib/modules:/lib/modules:ro"]
    tmpfs: [/tmp, "/run:size=16m,mode=1777"]
networks:
  mail:
    driver: bridge
    driver_opts: {com.docker.network.bridge.name: br-mail}
    enable_ipv6: true
    ipam:
      driver: default
      config: [{subnet: "${NETWORK:-172.22.7}.0/24"}, {subnet: "fd4d:6169::/64"}]
volumes: {data: , spool: , sockets: }
"""

MEETING = """
services:
  web:
    image: example/web:${VERSION:-stable}
    ports: ['${PORT_HTTP}:80', '${PORT_UDP}:${PORT_UDP}/udp']
    volumes: ['${CONFIG}/web:/config:Z']
    environment: [ROOM, PUBLIC_URL=https://example.com, 'XMPP_DOMAIN=${XMPP_DOMAIN:-meet.local}']
    networks: {meet.local: }
    depends_on: [bridge]
  Bridge.Node:
    image: example/bridge
    networks: {meet.local: {aliases: ['${XMPP_SERVER:-xmpp.meet.local}']}}
    devices: [/dev/null:/dev/snd]
    shm_size: 2gb
  bridge:
    image: example/bridge
    expose: ["${EXPOSED:-5222}", "5280"]
    networks: {meet.local: {aliases: [xmpp.meet.local]}}
    labels: {service: prosody}
networks: {meet.local: }
"""

WORKFLOWS = """
x-common: &common
  image: ${IMAGE:-example/flow:3}
  environment: &env
    EXECUTOR: Celery
    KEY: ''
    EXTRA: ${EXTRA:-}
  volumes: ["${DIR:-.}/dags:/opt/dags"]
  user: "${FLOW_UID:-50000}:0"
  depends_on: &needs
    cache: {condition: service_healthy}
services:
  cache:
    image: redis:7
    expose: [6379]
    healthcheck: {test: [CMD, redis-cli, ping], retries: 50, start_period: 30s}
  migrate:
    <<: *common
    entrypoint: /bin/bash
    command: [-c, 'exec migrate "$${HOSTNAME}"']
    environment: {<<: *env, MIGRATE: 'true'}
    user: "0:0"
  worker:
    <<: *common
    command: celery worker
    environment: {<<: *env, SET_SID: "0"}
    deploy: {replicas: 2, resources: {limits: {cpus: '0.50', memory: 512M}}}
    depends_on:
      <<: *needs
      migrate: {condition: service_completed_successfully}
  flower:
    <<: *common
    profiles: [flower]
"""

MONITORING = """
version: "3.8"
services:
  containers:
    image: example/cadvisor
    container_name: containers
    privileged: true
    devices: [/dev/kmsg:/dev/kmsg]
    volumes: [/:/rootfs:ro, /var/run:/var/run:rw, {type: bind, source: /sys, target: /sys}]
    restart: unless-stopped
    network_mode: host
    labels: {org.label-schema.group: monitoring}
  nodes:
    image: example/nodes
    command: ['--collector.filesystem.ignored-mount-points=^/(sys|proc)($$|/)']
    pid: host
    volumes: [{type: bind, source: /, target: /host, read_only: true,
               bind: {propagation: rslave}}]
    deploy: {mode: global, placement: {constraints: [node.role == manager]}}
  dashboard:
    build: .
    image: example/dashboard
    links: [metrics, "metrics:prometheus"]
    configs: [{source: rules, target: /etc/rules.yml}]
    secrets: [admin]
    logging: {driver: syslog, options: {syslog-address: "udp://localhost:514"}}
  metrics:
    image: example/metrics
    volumes_from: ["nodes:ro"]
configs: {rules: {content: "a: ${RULE:-1}"}}
secrets: {admin: {environment: ADMIN}}
"""

APPLICATIONS = {"mail": MAIL, "meeting": MEETING, "workflows": WORKFLOWS, "monitoring": MONITORING}
VARIABLES = {
    "TZ": "UTC",
    "DBPASS": "secret",
    "PORT_HTTP": "8000",
    "PORT_UDP": "10000",
    "CONFIG": "/srv/meet",
    "ADMIN": "hush",
}


def load_application(folder: Path, name: str) -> LoadedProject:
    (folder / "compose.yml").write_text(dedent(APPLICATIONS[name]))
    return load([folder / "compose.yml"], environment=VARIABLES, project=name)


@pytest.mark.parametrize("name", list(APPLICATIONS))
def test_an_application_loads_and_prints_its_canonical_form(tmp_path: Path, name: str) -> None:
    loaded = load_application(tmp_path, name)
    assert all(service.plain for service in loaded.project.services)
    again = build_canonical(loaded)
    assert set(again["services"]) == {service.name for service in loaded.project.services}


def service(folder: Path, name: str, of: str) -> Service:
    return load_application(folder, of).project.service(name)


def test_the_mail_server(tmp_path: Path) -> None:
    project = load_application(tmp_path, "mail").project
    (network,) = project.networks
    assert network.pools == (
        AddressPool(subnet="172.22.7.0/24"),
        AddressPool(subnet="fd4d:6169::/64"),
    )
    assert network.driver_opts == {"com.docker.network.bridge.name": "br-mail"}
    smtp = project.service("smtp")
    assert smtp.attachments == {"mail": Attachment(ipv4_address="172.22.7.253")}
    ports = ["25:25/tcp", "465:465/tcp", "127.0.0.1:13306:3306/tcp"]
    assert [str(port) for port in smtp.ports] == ports
    assert smtp.labels["scheduler.job-exec.command"].startswith('/bin/sh -c "[ ${MASTER} == y ]')
    assert project.service("firewall").networks == ()
    assert project.service("resolver").volumes[0].selinux == "Z"


def test_the_conference(tmp_path: Path) -> None:
    web = service(tmp_path, "web", "meeting")
    assert web.environment["XMPP_DOMAIN"] == "meet.local"
    assert "ROOM" not in web.environment
    assert [port.protocol for port in web.ports] == ["tcp", "udp"]
    node = service(tmp_path, "Bridge.Node", "meeting")
    assert node.aliases == {"meet.local": ("xmpp.meet.local",)}


def test_the_workflow_engine(tmp_path: Path) -> None:
    worker = service(tmp_path, "worker", "workflows")
    assert worker.environment == {"EXECUTOR": "Celery", "KEY": "", "EXTRA": "", "SET_SID": "0"}
    assert set(worker.depends_on) == {"cache", "migrate"}
    assert (worker.replicas, worker.resources.cpus) == (2, 0.5)
    migrate = service(tmp_path, "migrate", "workflows")
    assert migrate.command == ("-c", 'exec migrate "${HOSTNAME}"')
    assert migrate.user == "0:0"


def test_the_monitoring_stack(tmp_path: Path) -> None:
    loaded = load_application(tmp_path, "monitoring")
    project = loaded.project
    assert {str(each).rpartition(": ")[2].partition(";")[0] for each in loaded.warnings} == {
        "this key has no effect",
    }
    assert any(each.swarm_constraints for each in project.services)
    dashboard = project.service("dashboard")
    assert set(dashboard.depends_on) == {"metrics"}
    assert {mount.content for mount in dashboard.volumes} == {"hush", "a: 1"}
    assert project.service("containers").options.container_name == "containers"
    assert project.service("nodes").volumes[0].propagation == "rslave"
