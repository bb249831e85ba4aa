"""Wrong input gets a clear error and changes nothing."""

import socket
import time

import pytest

from tests.support.mesh import TestMesh, service_text


def compose(mesh: TestMesh, image: str, **more: str) -> str:
    project = mesh.environment["PROJECT"]
    return f"name: {project}\nservices:\n" + service_text("web", mesh.runtime, image, **more)


BROKEN = [
    ("services:\n  web: {image: x, command: [a}\n", "compose.yml:2"),
    ("services:\n  web:\n    image: x\n    comand: [a]\n", "comand"),
    ("services:\n  web:\n    image: x\n    deploy: {replicas: many}\n", "replicas"),
    ("services:\n  web:\n    command: [a]\n    x-mesh: {scale: {p95: fast}}\n", "p95"),
    ("services: {}\n", "services"),
]


@pytest.mark.parametrize(("text", "named"), BROKEN)
async def test_a_broken_file_is_refused_before_anything_starts(
    mesh: TestMesh, text: str, named: str
) -> None:
    up = await mesh.up(text)
    assert up.code == 2, up.out + up.err
    assert named in up.err
    assert "compose.yml:" in up.err
    assert "Traceback" not in up.err
    assert (await mesh.run("ps")).code == 3


async def test_a_broken_deploy_changes_nothing_that_runs(mesh: TestMesh, engine_image: str) -> None:
    assert (await mesh.up(compose(mesh, engine_image))).code == 0
    before = await mesh.service("web")
    path = mesh.folder / "compose.yml"
    path.write_text(compose(mesh, engine_image, policy="{routes: [/], scale: {min: 5, max: 2}}"))
    deploy = await mesh.run("deploy", "-f", str(path))
    assert deploy.code == 2
    assert "min" in deploy.err
    after = await mesh.service("web")
    assert [r["name"] for r in after["replicas"]] == [r["name"] for r in before["replicas"]]


async def test_a_port_in_use_is_reported(mesh: TestMesh, engine_image: str) -> None:
    host, _, port = mesh.address.rpartition(":")
    with socket.create_server((host, int(port))):
        up = await mesh.up(compose(mesh, engine_image))
    assert up.code == 2, up.out + up.err
    assert port in up.err
    assert "in use" in up.err
    assert "Traceback" not in up.err


async def test_a_replica_that_never_gets_healthy_is_shown_with_its_last_output(
    mesh: TestMesh, engine_image: str
) -> None:
    text = compose(
        mesh,
        engine_image,
        environment="{FAULT: never-healthy}",
        policy="{routes: [/], health: {path: /healthz, start_timeout: 3s}}",
    )
    began = time.monotonic()
    up = await mesh.up(text, "--timeout", "20s")
    assert up.code == 1, up.out + up.err
    assert time.monotonic() - began < 60
    said = up.out + up.err
    assert "origin v1 listening" in said
    assert "503" in said


async def test_a_crash_loop_is_named(mesh: TestMesh, engine_image: str) -> None:
    text = compose(mesh, engine_image, environment="{FAULT: exit}")
    up = await mesh.up(text, "--timeout", "15s")
    assert up.code == 1, up.out + up.err
    assert "refusing to start: FAULT=exit" in up.out + up.err


async def test_an_image_that_does_not_exist(mesh: TestMesh) -> None:
    if mesh.runtime == "process":
        text = f"name: {mesh.environment['PROJECT']}\nservices:\n  web:\n    image: no/such:image\n"
    else:
        text = compose(mesh, "127.0.0.1:9/no/such:image")
    up = await mesh.up(text, "--timeout", "30s")
    assert up.code in (1, 2), up.out + up.err
    assert "no/such:image" in up.out + up.err or "command" in up.err
    assert "Traceback" not in up.out + up.err
