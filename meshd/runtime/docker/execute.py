"""Run a command in a running container. Used by `DockerRuntime.execute`."""

import asyncio
from collections import deque

from meshd.model.runtime import CommandResult
from meshd.runtime.base import ReplicaNotFound, StartFailed
from meshd.runtime.docker.engine import Engine
from meshd.spec.model import ContainerHook

LINES_KEPT = 20
"""Last lines of output that are returned: enough for the end of a stack trace."""
OUTPUT_KEPT = 16 * 1024
"""Characters of output that are kept for them."""
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two questions whether a command whose output ended has ended too."""


async def execute(engine: Engine, name: str, hook: ContainerHook, seconds: float) -> CommandResult:
    """See `Runtime.execute`."""
    command = " ".join(hook.command)
    absent = ReplicaNotFound(f"container {name} does not run")
    try:
        async with (
            asyncio.timeout(seconds),
            engine.request(None, {404: absent, 409: absent}, StartFailed) as docker,
        ):
            process = await docker.containers.container(name).exec(
                list(hook.command),
                privileged=hook.privileged,
                user=hook.user,
                environment=hook.environment,
                workdir=hook.working_dir or None,
            )
            output: deque[str] = deque()
            length = 0
            async with process.start(detach=False) as stream:
                while (message := await stream.read_out()) is not None:
                    output.append(message.data.decode(errors="replace"))
                    length += len(output[-1])
                    while length > OUTPUT_KEPT and len(output) > 1:
                        length -= len(output.popleft())
            pause = FIRST_PAUSE
            while (code := (await process.inspect())["ExitCode"]) is None:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
    except TimeoutError as error:
        raise StartFailed(f"{command!r} did not end within {seconds:g} s") from error
    return CommandResult(int(code), tuple("".join(output).splitlines()[-LINES_KEPT:]))
