"""Secrets and configs on a real engine: a rotation rolls their users, and no value is ever
shown."""

import secrets
import tarfile
from pathlib import Path

import pytest

from tests.support.inside_replica import ran
from tests.support.mesh import TestMesh, service_text

pytestmark = [pytest.mark.slow]
DEPLOY = "{replicas: 1, update_config: {monitor: 1s}}"


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.engine)])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def spec(mesh: TestMesh, image: str) -> str:
    """`till` uses the secret, `menu` the config, `plain` neither."""

    def one(name: str, more: str) -> str:
        policy = f"{{routes: [/{name}], drain: 1s}}"
        return service_text(name, "docker", image, deploy=DEPLOY, policy=policy) + more

    return (
        f"name: {mesh.environment['PROJECT']}\n"
        "secrets: {card: {file: ./card.txt}}\nconfigs: {dishes: {file: ./dishes.txt}}\nservices:\n"
        + one("till", "    secrets: [card]\n")
        + one("menu", "    configs: [{source: dishes, target: /etc/dishes}]\n")
        + one("plain", "")
    )


async def replicas(mesh: TestMesh) -> dict[str, str]:
    return {
        service["name"]: replica["name"]
        for service in (await mesh.api("/v1/status"))["services"]
        for replica in service["replicas"]
        if replica["phase"] == "ready"
    }


async def content(replica: str, path: str) -> str:
    code, out, err = await ran("docker", "exec", replica, "cat", path)
    assert code == 0, err
    return out.decode()


async def visible_texts(mesh: TestMesh) -> dict[str, bytes]:
    """Return every text that is stored or shown about the project, by its place."""
    project = mesh.environment["PROJECT"]
    found = {str(file): file.read_bytes() for file in mesh.state.rglob("*") if file.is_file()}
    assert {"meshd.db", "daemon.log", "snapshot.bin"} <= {Path(name).name for name in found}
    for path in ("/v1/status", "/v1/events?limit=1000", "/metrics", f"/v1/projects/{project}"):
        found[path] = (await mesh.text(path)).encode()
    label = f"label=mesh.project={project}"
    for kind in ("container", "network", "volume"):
        every = ("--all",) if kind == "container" else ()
        _, names, _ = await ran("docker", kind, "ls", "-q", *every, "--filter", label)
        for name in names.decode().split():
            _, out, _ = await ran("docker", kind, "inspect", name)
            found[f"{kind} {name}"] = out
            if kind == "container":
                _, out, err = await ran("docker", "logs", name)
                found[f"logs of {name}"] = out + err
    backup = mesh.folder / "backup.tar.gz"
    assert (await mesh.run("backup", str(backup))).code == 0
    with tarfile.open(backup) as archive:
        for member in archive.getnames():
            file = archive.extractfile(member)
            assert file is not None
            found[f"backup {member}"] = file.read()
    return found


async def test_rotation_rolls_the_users_and_no_secret_leaks(
    mesh: TestMesh, engine_image: str
) -> None:
    values = [secrets.token_hex(16) for _ in range(2)]
    card, dishes = mesh.folder / "card.txt", mesh.folder / "dishes.txt"
    card.write_text(values[0])
    card.chmod(0o600)
    dishes.write_text("soup")
    up = await mesh.up(spec(mesh, engine_image))
    assert up.code == 0, up.out + up.err
    before = await replicas(mesh)
    assert await content(before["till"], "/run/secrets/card") == values[0]
    said = up.out + up.err

    # As an editor and most tools write a file: a new one takes the place of the old.
    new = mesh.folder / "card.new"
    new.write_text(values[1])
    new.replace(card)
    done = await mesh.run("deploy", "-f", str(mesh.folder / "compose.yml"))
    assert done.code == 0, done.out + done.err
    after = await replicas(mesh)
    assert after["till"] != before["till"]
    assert (after["menu"], after["plain"]) == (before["menu"], before["plain"])
    assert await content(after["till"], "/run/secrets/card") == values[1]

    dishes.write_text("stew")
    diff = await mesh.run("diff", "-f", str(mesh.folder / "compose.yml"))
    done = await mesh.run("deploy", "-f", str(mesh.folder / "compose.yml"))
    assert done.code == 0, done.out + done.err
    last = await replicas(mesh)
    assert last["menu"] != after["menu"]
    assert (last["till"], last["plain"]) == (after["till"], after["plain"])
    assert await content(last["menu"], "/etc/dishes") == "stew"

    said += diff.out + diff.err + done.out + done.err
    for value in values:
        for where, text in {**await visible_texts(mesh), "commands": said.encode()}.items():
            assert value.encode() not in text, f"{where} tells a secret"
