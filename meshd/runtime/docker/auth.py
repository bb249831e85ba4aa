"""Registry credentials from `docker login`: the file and the helpers that the Docker client
uses, so that a private image needs no setting in meshd. Used by `image`."""

import asyncio
import base64
import json
import os
from pathlib import Path

from meshd.runtime.base import ImageMissing

HUB = "https://index.docker.io/v1/"
HELPER_PATIENCE = 15.0
"""Seconds for a credential helper; some ask the user."""
Credentials = dict[str, str]


def registry_of(image: str) -> str:
    """Return the registry of an image name, as the Docker client keys its credentials."""
    first, slash, _ = image.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    return first if named and first != "docker.io" else HUB


async def credentials(image: str) -> Credentials | None:
    """Return the credentials for `image`; None if none are stored. Raises ImageMissing if they
    cannot be read."""
    directory = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        config = json.loads((directory / "config.json").read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ImageMissing(f"{directory}/config.json cannot be read: {error}") from error
    registry = registry_of(image)
    helper = (config.get("credHelpers") or {}).get(registry) or config.get("credsStore")
    known = (config.get("auths") or {}).get(registry) or {}
    if known.get("auth"):
        user, _, password = base64.b64decode(known["auth"]).decode().partition(":")
        return {"username": user, "password": password, "serveraddress": registry}
    return await _from_helper(helper, registry) if helper else None


async def _from_helper(helper: str, registry: str) -> Credentials | None:
    """Ask `docker-credential-HELPER`, as the Docker client does."""
    program = f"docker-credential-{helper}"
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            program, "get", stdin=pipe, stdout=pipe, stderr=pipe
        )
    except OSError as error:
        raise ImageMissing(f"{program}: {error.strerror}; log in to {registry} again") from error
    try:
        async with asyncio.timeout(HELPER_PATIENCE):
            output, _ = await process.communicate(registry.encode())
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise ImageMissing(f"{program} did not answer within {HELPER_PATIENCE:g} s") from error
    if process.returncode != 0:  # how a helper says that it knows none
        return None
    answer = json.loads(output)
    if answer.get("Username") == "<token>":
        return {"identitytoken": answer["Secret"], "serveraddress": registry}
    return {
        "username": answer["Username"],
        "password": answer["Secret"],
        "serveraddress": registry,
    }
