"""The fields that determine a revision, and those that do not."""

import subprocess
import sys
from typing import Any

import pytest

from meshd.spec import fingerprint
from meshd.spec.fingerprint import compute_revision, pin_dependencies
from meshd.spec.model import Service

BASE: dict[str, Any] = {
    "name": "web",
    "image": "shop/web:1",
    "command": ["serve", "--fast"],
    "environment": {"A": "1", "B": "2"},
    "resources": {"memory": "256m", "cpus": 0.5},
    "mesh": {"port": 9000, "routes": ["/a"]},
}


def service(**changed: Any) -> Service:
    return Service.model_validate({**BASE, **changed})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image", "shop/web:2"),
        ("build", {"context": "/src"}),
        ("command", ["serve"]),
        ("command", None),
        ("entrypoint", ["/init"]),
        ("working_dir", "/srv"),
        ("user", "1000"),
        ("environment", {"A": "1"}),
        ("environment", {"A": "1", "B": "3"}),
        ("networks", ["back"]),
        ("network_names", {"back": "shop-net"}),
        ("aliases", {"back": ["store"]}),
        ("volumes", [{"type": "volume", "target": "/data"}]),
        ("labels", {"team": "food"}),
        ("healthcheck", {"test": ["CMD", "true"]}),
        ("stop_signal", "SIGINT"),
        ("resources", {"memory": "512m", "cpus": 0.5}),
        ("placement", ["node.labels.disk==ssd"]),
        ("init", True),
        ("read_only", True),
        ("cap_add", ["NET_RAW"]),
        ("cap_drop", ["ALL"]),
        ("security_opt", ["no-new-privileges:true"]),
        ("group_add", ["audio"]),
        ("sysctls", {"a.b": "1"}),
        ("ulimits", {"core": {"soft": 0, "hard": 0}}),
        ("shm_size", "64m"),
        ("extra_hosts", {"bank": "10.0.0.1"}),
        ("dns", ["9.9.9.9"]),
        ("dns_search", ["example.com"]),
        ("dns_opt", ["timeout:1"]),
        ("logging", {"driver": "journald"}),
        ("options", {"cpuset": "0"}),
        ("mesh", {"port": 9001, "routes": ["/a"]}),
    ],
)
def test_fields_that_change_the_revision(field: str, value: object) -> None:
    assert compute_revision(service(**{field: value})) != compute_revision(service())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "other"),
        ("replicas", 7),
        ("expose", [9100]),
        ("stop_grace_period", "1m"),
        ("update", {"parallelism": 5}),
        ("restart", {"condition": "none"}),
        ("depends_on", ["db"]),
        ("wait_healthy", ["db"]),
        ("environment", {"B": "2", "A": "1"}),
        *(
            ("mesh", {"port": 9000, "routes": ["/a"], **setting})
            for setting in (
                {"routes": ["/b"]},
                {"scale": {"min": 1, "max": 9, "p95": "1s"}},
                {"health": "/ready"},
                {"balance": "maglev"},
                {"timeouts": {"request": "1s"}},
                {"retries": {"attempts": 0}},
                {"limits": {"pending": 1}},
                {"parking": {"requests": 1}},
                {"eject": {"consecutive": 1}},
                {"allow": ["orders"]},
                {"drain": "1s"},
            )
        ),
    ],
)
def test_fields_that_do_not_change_the_revision(field: str, value: object) -> None:
    assert compute_revision(service(**{field: value})) == compute_revision(service())


def test_an_explicit_sigterm_and_a_mounted_file_keep_the_revision() -> None:
    """As in earlier versions, which stored SIGTERM where the file named no signal."""
    assert compute_revision(service(stop_signal="SIGTERM")) == compute_revision(service())
    mount = {"type": "bind", "source": "/run/a.sock", "target": "/a.sock"}
    of_file = service(volumes=[{**mount, "is_file": True}])
    assert compute_revision(of_file) == compute_revision(service(volumes=[mount]))


def test_revisions_are_those_of_the_version_before() -> None:
    stored = service(volumes=[{"type": "volume", "source": "db", "target": "/data"}])
    assert compute_revision(stored) == "7h4vtmsjab"
    assert compute_revision(service()) == "geawjghdw3"


def test_every_field_is_in_exactly_one_group() -> None:
    assert set(Service.model_fields) == fingerprint.REPLICA_FIELDS | fingerprint.OTHER_FIELDS
    assert not fingerprint.REPLICA_FIELDS & fingerprint.OTHER_FIELDS


def test_a_revision_is_short_and_valid_in_names() -> None:
    assert len(compute_revision(service())) == 10
    assert compute_revision(service()).isalnum()
    assert compute_revision(service()) == compute_revision(service()).lower()


def test_a_revision_does_not_depend_on_process_or_order() -> None:
    code = (
        "from meshd.spec.fingerprint import compute_revision\n"
        "from meshd.spec.model import Service\n"
        f"print(compute_revision(Service.model_validate(dict(reversed({BASE!r}.items())))))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert outputs == {compute_revision(service())}


def test_revisions_equal_those_of_earlier_versions() -> None:
    """A change here causes a rollout of every service of every user."""
    assert compute_revision(service()) == "geawjghdw3"


def test_a_revision_survives_the_api() -> None:
    sent = Service.model_validate_json(service().model_dump_json())
    assert sent == service()
    assert compute_revision(sent) == compute_revision(service())


def test_a_dependency_that_restarts_a_service_is_part_of_its_revision() -> None:
    def revisions(version: str) -> list[str]:
        services = (
            service(name="web", restart_with=["api"]),
            service(name="api", depends_on=["db"], restart_with=["db"]),
            service(name="db", image=f"db:{version}"),
            service(name="mail", depends_on=["db"]),
        )
        return [compute_revision(each) for each in pin_dependencies(services)]

    one, other = revisions("1"), revisions("2")
    assert [a == b for a, b in zip(one, other, strict=True)] == [False, False, False, True]
    assert one[3] == compute_revision(service(name="mail"))
