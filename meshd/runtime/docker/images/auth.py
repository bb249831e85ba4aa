"""Registry credentials from `docker login`: the file and the helpers that the Docker client
uses, so that a private image needs no setting in meshd. Used by `image` and `pull`.

Nothing here stops a pull: an image may be public. A problem, such as a helper that is not
installed, is returned, and shown if the pull fails.
"""

import asyncio
import base64
import binascii
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from meshd.runtime import child_process
from meshd.spec.image_name import HUB, parse_image_name

HUB_KEY: Final = "https://index.docker.io/v1/"
"""The Docker client's key for the credentials of Docker Hub."""
HELPER_PATIENCE: Final = 15.0
"""Seconds for a credential helper; some ask the user."""
NOT_FOUND: Final = ("credentials not found", "no credentials server url")
"""Parts of the messages of a helper that has no credentials for a registry."""
TOKEN_USER: Final = "<token>"  # noqa: S105 (not a password)
"""User name with which a helper returns an identity token."""
Credentials = dict[str, str]


@dataclass(frozen=True, slots=True)
class Login:
    """What `docker login` left for one registry.

    - `credentials`: the engine's `AuthConfig`; None if there are none.
    - `problem`: why some could not be read, in one line; empty if all could.
    """

    credentials: Credentials | None = None
    problem: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """The engine's header with the credentials."""
        return {"X-Registry-Auth": encode(self.credentials)} if self.credentials else {}


def encode(value: Mapping[str, object]) -> str:
    """Return credentials as the engine's headers carry them."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def registry_key(image: str) -> str:
    """Return the registry of an image name, as the Docker client keys its credentials."""
    registry = parse_image_name(image).registry
    return HUB_KEY if registry == HUB else registry


def config_directory() -> Path:
    """Return the directory of the Docker client's settings."""
    return Path(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"))


async def find_login(image: str) -> Login:
    """Return the credentials for the registry of `image`: from the helper that is set for it, or
    from the file."""
    path = config_directory() / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        return Login()
    except (OSError, ValueError) as error:
        return Login(problem=f"{path} cannot be read: {error}")
    if not isinstance(config, dict):
        return Login(problem=f"{path} cannot be read: it is not a JSON object")
    registry = registry_key(image)
    helper = _find(config.get("credHelpers"), registry) or config.get("credsStore")
    stored = _from_entry(_find(config.get("auths"), registry), registry, path)
    if not helper or not isinstance(helper, str):
        return stored
    found = await _from_helper(helper, registry, path)
    if found.credentials is not None:
        return found
    return (
        stored if stored.credentials is not None else Login(None, found.problem or stored.problem)
    )


async def find_logins(images: Iterable[str]) -> dict[str, Login]:
    """Return the logins for the registries of these images, by the Docker client's key."""
    by_registry = {registry_key(image): image for image in images}
    return {key: await find_login(image) for key, image in by_registry.items()}


def host_of(key: str) -> str:
    """Return the host of a key of `auths`, which may be an address: `https://ghcr.io/v1/`. All
    names of Docker Hub give the same."""
    host = key.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return parse_image_name(f"{host}/x").registry if host else ""


def _find(entries: object, registry: str) -> Any:
    """Return the entry of a registry: by its exact key, or by its host; None if there is none."""
    if not isinstance(entries, dict):
        return None
    if registry in entries:
        return entries[registry]
    host = host_of(registry)
    return next((value for key, value in entries.items() if host_of(key) == host), None)


def _from_entry(entry: object, registry: str, path: Path) -> Login:
    """Return the credentials of an entry of `auths`."""
    if not isinstance(entry, dict):
        return Login()
    user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            text = base64.b64decode(str(entry["auth"]), validate=True).decode()
        except (binascii.Error, ValueError):
            return Login(problem=f"{path}: `auth` of {registry} is not valid base64")
        user, _, password = text.partition(":")
        password = password.rstrip("\0")
    given = {
        "username": user,
        "password": password,
        "identitytoken": str(entry.get("identitytoken") or ""),
        "registrytoken": str(entry.get("registrytoken") or ""),
    }
    found = {key: value for key, value in given.items() if value}
    return Login({**found, "serveraddress": registry}) if found else Login()


async def _from_helper(helper: str, registry: str, path: Path) -> Login:
    """Ask `docker-credential-HELPER`, as the Docker client does."""
    program = f"docker-credential-{helper}"
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            program, "get", stdin=pipe, stdout=pipe, stderr=pipe
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return Login(
            problem=f"{program}, which {path} names for {registry}, cannot be run: {reason}; "
            f"install it, or log in to {registry} without it"
        )
    try:
        async with asyncio.timeout(HELPER_PATIENCE):
            output, errors = await process.communicate(registry.encode())
    except TimeoutError:
        return Login(problem=f"{program} did not answer within {HELPER_PATIENCE:g} s")
    finally:
        await child_process.end(process)
    if process.returncode != 0:
        text = (output + errors).decode(errors="replace").strip()
        if not text or any(part in text.lower() for part in NOT_FOUND):
            return Login()
        return Login(problem=f"{program} failed for {registry}: {text.splitlines()[-1]}")
    try:
        answer = json.loads(output)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        return Login(problem=f"{program} gave an answer for {registry} that cannot be read")
    if user == TOKEN_USER:
        return Login({"identitytoken": secret, "serveraddress": registry})
    return Login({"username": user, "password": secret, "serveraddress": registry})
