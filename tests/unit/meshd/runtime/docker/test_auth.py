"""Credentials that `docker login` left, found as the Docker client finds them."""

import base64
import json
from pathlib import Path

import pytest

from meshd.runtime.base import ImageMissing
from meshd.runtime.docker.auth import HUB, credentials, registry_of

INLINE = {"auth": base64.b64encode(b"ada:se:cret").decode()}
HELPER = """#!/bin/sh
test "$1" = get || exit 2
read -r registry
test "$registry" = known.example || exit 1
echo '{"Username": "ada", "Secret": "from helper"}'
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    helper = tmp_path / "docker-credential-box"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "config.json"


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("nginx", HUB),
        ("team/app:1", HUB),
        ("docker.io/team/app", HUB),
        ("ghcr.io/team/app", "ghcr.io"),
        ("localhost/app", "localhost"),
        ("host:5000/app@sha256:0", "host:5000"),
    ],
)
def test_registry(image: str, registry: str) -> None:
    assert registry_of(image) == registry


@pytest.mark.parametrize(
    ("content", "image", "expected"),
    [
        ({}, "nginx", None),
        ({"auths": {HUB: INLINE}}, "team/app", ("ada", "se:cret")),
        ({"auths": {HUB: INLINE}}, "known.example/app", None),
        ({"credsStore": "box"}, "known.example/app", ("ada", "from helper")),
        ({"credHelpers": {"known.example": "box"}}, "known.example/app", ("ada", "from helper")),
        ({"credsStore": "box"}, "other.example/app", None),
    ],
)
async def test_credentials(
    config: Path, content: dict[str, object], image: str, expected: tuple[str, str] | None
) -> None:
    config.write_text(json.dumps(content))
    found = await credentials(image)
    assert (found and (found["username"], found["password"])) == expected


async def test_without_a_file_there_are_no_credentials(config: Path) -> None:
    assert await credentials("nginx") is None


@pytest.mark.parametrize("content", ["{", json.dumps({"credsStore": "absent"})])
async def test_an_unreadable_file_is_named(config: Path, content: str) -> None:
    config.write_text(content)
    with pytest.raises(ImageMissing, match=r"config\.json|docker-credential-absent"):
        await credentials("nginx")
