"""Builds images with BuildKit, through the plugin buildx of the Docker command line.

Used by `image` for what the engine's own builder does not have. Compose builds by the same
plugin. Secrets are passed as files, or in the environment of the command, never as arguments.
"""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshd.runtime import child_process
from meshd.runtime.base import StartFailed
from meshd.spec.model import Build

BINARY: Final = "docker"
VERSION_SECONDS: Final = 10.0
"""Seconds in which the plugin says its version."""
END_SECONDS: Final = 10.0
"""Seconds in which a build that is given up ends."""
_SECRET: Final = "MESHD_BUILD_SECRET_"  # noqa: S105 (the name of a variable)
"""Begins the names of variables with secrets."""
LINE_BYTES: Final = 1024 * 1024
"""Bytes of a line of output: progress lines of programs may be long."""
_SYNTAX: Final = re.compile(
    r"^\s*(?:#\s*syntax\s*=|(?:RUN\b.*--(?:mount|network|security)=)"
    r"|(?:(?:COPY|ADD)\b.*--(?:link|chmod|parents|exclude|checksum|keep-git-dir)\b)"
    r"|(?:(?:RUN|COPY|ADD)\b.*<<-?[\"']?\w))",
    re.IGNORECASE | re.MULTILINE,
)
"""Instructions of a Dockerfile that only BuildKit knows."""


@dataclass(frozen=True, slots=True)
class BuildCommand:
    """One call of the plugin.

    - `arguments`: after the name of the program.
    - `variables`: variables in addition to those of the process.
    - `input`: the Dockerfile, if it is not a file; else empty.
    """

    arguments: tuple[str, ...]
    variables: Mapping[str, str]
    input: str = ""


def uses_buildkit(dockerfile: str) -> bool:
    """Return whether a Dockerfile has instructions that only BuildKit knows."""
    return _SYNTAX.search(dockerfile) is not None


def build_command(
    names: Sequence[str], build: Build, labels: Mapping[str, str], platform: str
) -> BuildCommand:
    """Return the call that builds an image with all `names` into the engine. `labels` are
    additional labels, `platform` is the one to build for; empty for the engine's own."""
    found = ["buildx", "build", "--load", "--progress", "plain"]
    variables: dict[str, str] = {}

    def add(option: str, *values: str) -> None:
        for value in values:
            found.extend((option, value))

    add("--tag", *dict.fromkeys((*names, *build.tags)))
    if build.dockerfile_inline:
        add("--file", "-")
    elif build.is_remote:
        add("--file", build.dockerfile)
    else:
        add("--file", str(Path(build.context) / build.dockerfile))
    add("--target", *filter(None, (build.target,)))
    add("--platform", *filter(None, (platform,)))
    add("--network", *filter(None, (build.network,)))
    add("--build-arg", *(f"{name}={value}" for name, value in build.args.items()))
    add("--label", *(f"{name}={value}" for name, value in {**build.labels, **labels}.items()))
    add(
        "--add-host",
        *(
            f"{name}:{address}"
            for name, addresses in build.extra_hosts.items()
            for address in addresses.split(",")
        ),
    )
    add("--build-context", *(f"{name}={at}" for name, at in build.additional_contexts.items()))
    add("--cache-from", *build.cache_from)
    add("--cache-to", *build.cache_to)
    add("--no-cache-filter", *build.no_cache_filter)
    add("--ulimit", *(f"{name}={u.soft}:{u.hard}" for name, u in build.ulimits.items()))
    add("--shm-size", *([str(build.shm_size)] if build.shm_size else ()))
    add("--allow", *build.entitlements, *(["security.insecure"] if build.privileged else ()))
    add("--ssh", *(f"{name}={path}" if path else name for name, path in build.ssh.items()))
    add("--secret", *(f"id={name},src={path}" for name, path in build.secrets.items()))
    for number, (name, value) in enumerate(build.secret_values.items()):
        variables[f"{_SECRET}{number}"] = value
        add("--secret", f"id={name},env={_SECRET}{number}")
    found += ["--no-cache"] * build.no_cache + ["--pull"] * build.pull
    return BuildCommand((*found, build.context), variables, build.dockerfile_inline)


async def is_installed() -> bool:
    """Return whether the plugin answers."""
    try:
        process = await asyncio.create_subprocess_exec(
            BINARY,
            "buildx",
            "version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return False
    try:
        async with asyncio.timeout(VERSION_SECONDS):
            return await process.wait() == 0
    except TimeoutError:
        return False
    finally:
        await child_process.end(process)


async def run(command: BuildCommand) -> AsyncIterator[str]:
    """Run a build; yield its lines of output. Raises StartFailed if it fails. The command ends
    with the iteration."""
    try:
        process = await asyncio.create_subprocess_exec(
            BINARY,
            *command.arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **command.variables},
        )
    except OSError as error:
        raise StartFailed(f"docker buildx cannot be run: {error}") from error
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(command.input.encode())
        process.stdin.close()
        async with aclosing(_lines(process.stdout)) as lines:
            async for line in lines:
                yield line
        code = await process.wait()
        if code:
            raise StartFailed(f"docker buildx build ended with code {code}")
    finally:
        await child_process.end(process, END_SECONDS)


async def _lines(source: asyncio.StreamReader) -> AsyncGenerator[str]:
    """Yield the lines of a stream; a longer one than `LINE_BYTES` is split."""
    rest = b""
    while piece := await source.read(LINE_BYTES):
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip()
        if len(rest) > LINE_BYTES:
            yield rest.decode(errors="replace")
            rest = b""
    if rest:
        yield rest.decode(errors="replace").rstrip()
