"""Credentials that `docker login` left, found as the Docker client finds them."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from meshd.runtime.docker.images.auth import HUB_KEY, find_login, registry_key

INLINE = {"auth": base64.b64encode(b"ada:se:cret").decode()}
TOKEN = {"auth": base64.b64encode(b"00000000-0000:").decode(), "identitytoken": "T"}
ADA = {"username": "ada", "password": "se:cret"}
HELPER = """#!/bin/sh
test "$1" = get || exit 2
read -r registry
case $registry in
known.example | https://index.docker.io/v1/)
    echo '{"ServerURL": "x", "Username": "bob", "Secret": "from helper"}' ;;
token.example) echo '{"Username": "<token>", "Secret": "from helper"}' ;;
locked.example) echo 'the keychain is locked' >&2; exit 1 ;;
strange.example) echo '[]' ;;
*) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"""
BOB = {"username": "bob", "password": "from helper"}


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
        ("nginx", HUB_KEY),
        ("team/app:1", HUB_KEY),
        ("docker.io/team/app", HUB_KEY),
        ("index.docker.io/library/nginx", HUB_KEY),
        ("ghcr.io/team/app", "ghcr.io"),
        ("localhost/app", "localhost"),
        ("host:5000/app@sha256:0", "host:5000"),
    ],
)
def test_registry(image: str, registry: str) -> None:
    assert registry_key(image) == registry


@pytest.mark.parametrize(
    ("content", "image", "expected"),
    [
        ({}, "nginx", None),
        ({"auths": {HUB_KEY: INLINE}}, "team/app", ADA),
        ({"auths": {HUB_KEY: INLINE}}, "postgres:16", ADA),
        ({"auths": {"docker.io": INLINE}}, "docker.io/library/postgres", ADA),
        ({"auths": {"index.docker.io": INLINE}}, "postgres", ADA),
        ({"auths": {HUB_KEY: INLINE}}, "known.example/app", None),
        ({"auths": {"https://ghcr.io": INLINE}}, "ghcr.io/a/b", ADA),
        ({"auths": {"ghcr.io/v1/": INLINE}}, "ghcr.io/a/b", ADA),
        ({"auths": {"https://host:5000/v2/": INLINE}}, "host:5000/a", ADA),
        ({"auths": {"host:5000": INLINE}}, "host:5001/a", None),
        ({"auths": {"r.example": {"username": "ada", "password": "se:cret"}}}, "r.example/a", ADA),
        (
            {"auths": {"my.azurecr.io": TOKEN}},
            "my.azurecr.io/x:1",
            {"username": "00000000-0000", "identitytoken": "T"},
        ),
        ({"auths": {"r.example": {"registrytoken": "R"}}}, "r.example/a", {"registrytoken": "R"}),
        ({"auths": {"r.example": {}}}, "r.example/a", None),
        ({"auths": []}, "r.example/a", None),
        ({"credsStore": "box"}, "known.example/app", BOB),
        ({"credsStore": "box"}, "nginx", BOB),
        ({"credHelpers": {"known.example": "box"}}, "known.example/app", BOB),
        ({"credHelpers": {"docker.io": "box"}}, "nginx", BOB),
        ({"credsStore": "box"}, "token.example/app", {"identitytoken": "from helper"}),
        ({"credsStore": "box"}, "other.example/app", None),
        ({"credsStore": "box", "auths": {"other.example": INLINE}}, "other.example/app", ADA),
        ({"credsStore": "box", "auths": {"known.example": INLINE}}, "known.example/app", BOB),
        ({"credsStore": "absent", "auths": {"r.example": INLINE}}, "r.example/app", ADA),
    ],
)
async def test_credentials(
    config: Path, content: dict[str, object], image: str, expected: dict[str, str] | None
) -> None:
    config.write_text(json.dumps(content))
    found = await find_login(image)
    assert found.problem == ""
    expected = expected and {**expected, "serveraddress": registry_key(image)}
    assert found.credentials == expected
    assert found.headers.keys() == ({"X-Registry-Auth"} if expected else set())


async def test_without_a_file_there_are_no_credentials(config: Path) -> None:
    found = await find_login("nginx")
    assert (found.credentials, found.problem, found.headers) == (None, "", {})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "config.json cannot be read"),
        ("[]", "config.json cannot be read: it is not a JSON object"),
        (
            {"credsStore": "absent"},
            "docker-credential-absent, which .*config.json names for r.exam",
        ),
        ({"credsStore": "a\0b"}, "docker-credential-a"),
        ({"credHelpers": {"locked.example": "box"}}, "box failed for locked.example: the keychain"),
        ({"credHelpers": {"strange.example": "box"}}, "box gave an answer for strange.example"),
        ({"auths": {"r.example": {"auth": "%%%"}}}, "`auth` of r.example is not valid base64"),
    ],
)
async def test_a_problem_is_named_and_stops_nothing(
    config: Path, content: Any, problem: str
) -> None:
    config.write_text(content if isinstance(content, str) else json.dumps(content))
    helpers = content.get("credHelpers", {}) if isinstance(content, dict) else {}
    found = await find_login(f"{next(iter(helpers), 'r.example')}/app")
    assert found.credentials is None
    assert re.search(problem, found.problem)
