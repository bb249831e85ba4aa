"""The call of the plugin buildx: its arguments as a table, and runs with a recording `docker`."""

import itertools
import json
import stat
from pathlib import Path

import pytest

from meshd.runtime.base import StartFailed
from meshd.runtime.docker.images import buildx
from meshd.runtime.docker.images.buildx import build_command, uses_buildkit
from meshd.spec.model import Build, Ulimit

STUB = """#!/usr/bin/env python3
import json, os, sys
with open(os.path.join(os.path.dirname(__file__), "calls"), "a") as calls:
    secrets = {k: v for k, v in os.environ.items() if k.startswith("MESHD_BUILD_SECRET_")}
    calls.write(json.dumps([sys.argv[1:], secrets, sys.stdin.read()]) + "\\n")
print("#1 [1/2] FROM base")
print("x" * 200000, file=sys.stderr)
sys.exit(int(os.environ.get("STUB_CODE", "0")))
"""


def options(build: Build, platform: str = "") -> list[str]:
    """The arguments between those that each build has."""
    found = build_command(["web"], build, {"l": "1"}, platform).arguments
    assert found[:5] == ("buildx", "build", "--load", "--progress", "plain")
    assert found[-1] == build.context
    return list(found[5:-1])


BASE = ["--tag", "web", "--file", "/x/Dockerfile", "--label", "l=1"]


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({}, []),
        ({"tags": ("a", "web")}, ["--tag", "a"]),
        ({"target": "t"}, ["--target", "t"]),
        ({"network": "host"}, ["--network", "host"]),
        ({"args": {"A": "1", "B": ""}}, ["--build-arg", "A=1", "--build-arg", "B="]),
        ({"labels": {"m": "2"}}, ["--label", "m=2"]),
        ({"extra_hosts": {"h": "1.1.1.1,::1"}}, ["--add-host", "h:1.1.1.1", "--add-host", "h:::1"]),
        (
            {"additional_contexts": {"a": "/a", "b": "docker-image://b"}},
            ["--build-context", "a=/a", "--build-context", "b=docker-image://b"],
        ),
        ({"cache_from": ("c",), "cache_to": ("d",)}, ["--cache-from", "c", "--cache-to", "d"]),
        ({"no_cache_filter": ("s",)}, ["--no-cache-filter", "s"]),
        ({"ulimits": {"nofile": Ulimit(soft=1, hard=2)}}, ["--ulimit", "nofile=1:2"]),
        ({"shm_size": 64}, ["--shm-size", "64"]),
        (
            {"entitlements": ("network.host",), "privileged": True},
            ["--allow", "network.host", "--allow", "security.insecure"],
        ),
        ({"ssh": {"default": "", "k": "/k"}}, ["--ssh", "default", "--ssh", "k=/k"]),
        ({"secrets": {"s": "/s"}}, ["--secret", "id=s,src=/s"]),
        ({"no_cache": True, "pull": True}, ["--no-cache", "--pull"]),
    ],
)
def test_each_key_has_its_option(fields: dict[str, object], more: list[str]) -> None:
    found = options(Build.model_validate({"context": "/x", **fields}))
    assert sorted(found) == sorted([*BASE, *more])
    pairs = list(itertools.pairwise(found))
    for option, value in itertools.pairwise(more):
        if option.startswith("--") and not value.startswith("--"):
            assert (option, value) in pairs


def test_a_platform_and_a_remote_context() -> None:
    remote = Build(context="https://example.com/x.git#main", dockerfile="a/Dockerfile")
    assert options(remote, "linux/arm64")[2:6] == [
        "--file", "a/Dockerfile", "--platform", "linux/arm64",
    ]  # fmt: skip


def test_values_of_secrets_are_only_in_the_environment() -> None:
    build = Build(context="/x", secrets={"a": "/a"}, secret_values={"b": "sesame", "c": "opensea"})
    command = build_command(["web"], build, {}, "")
    assert "sesame" not in str(command.arguments)
    assert command.variables == {
        "MESHD_BUILD_SECRET_0": "sesame",
        "MESHD_BUILD_SECRET_1": "opensea",
    }
    assert "id=c,env=MESHD_BUILD_SECRET_1" in command.arguments


@pytest.mark.parametrize(
    ("line", "wants"),
    [
        ("RUN --mount=type=cache,target=/root make", True),
        ("run --network=none make", True),
        ("# syntax=docker/dockerfile:1", True),
        ("COPY --link a b", True),
        ("COPY --chmod=755 a b", True),
        ("COPY <<EOF /a", True),
        ("RUN cat <<'EOF'", True),
        ("RUN make --mounted", False),
        ("COPY --from=build --chown=1 a b", False),
        ("RUN echo 'a << b'", False),
        ("# COPY --link is not used", False),
    ],
)
def test_dockerfiles_that_need_buildkit(line: str, wants: bool) -> None:
    assert uses_buildkit(f"FROM base\n{line}\nCMD x") == wants


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a `docker` that records its calls in the file `calls`."""
    path = tmp_path / "docker"
    path.write_text(STUB)
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setattr(buildx, "BINARY", str(path))
    return tmp_path


async def test_a_build_runs_with_its_environment_and_input(docker: Path) -> None:
    build = Build(context="/x", dockerfile_inline="FROM base\n", secret_values={"b": "sesame"})
    command = build_command(["web"], build, {}, "")
    lines = [line async for line in buildx.run(command)]
    assert sorted(map(len, lines)) == [len("#1 [1/2] FROM base"), 200000]
    (call,) = (docker / "calls").read_text().splitlines()
    arguments, secrets, text = json.loads(call)
    assert arguments == list(command.arguments)
    assert arguments[arguments.index("--file") :][:2] == ["--file", "-"]
    assert (secrets, text) == ({"MESHD_BUILD_SECRET_0": "sesame"}, "FROM base\n")


async def test_a_line_that_is_too_long_comes_in_pieces(
    docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buildx, "LINE_BYTES", 1000)
    lines = [line async for line in buildx.run(build_command(["web"], Build(context="/x"), {}, ""))]
    pieces = [line for line in lines if not line.startswith("#1")]
    assert sum(map(len, pieces)) == 200000
    assert max(map(len, pieces)) <= 2000


async def test_a_build_that_fails(docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_CODE", "3")
    with pytest.raises(StartFailed, match="ended with code 3"):
        [_ async for _ in buildx.run(build_command(["web"], Build(context="/x"), {}, ""))]


async def test_whether_the_plugin_is_installed(
    docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await buildx.is_installed()
    monkeypatch.setenv("STUB_CODE", "1")
    assert not await buildx.is_installed()
    monkeypatch.setattr(buildx, "BINARY", str(docker / "nothing"))
    assert not await buildx.is_installed()
    with pytest.raises(StartFailed, match="cannot be run"):
        [_ async for _ in buildx.run(build_command(["web"], Build(context="/x"), {}, ""))]
