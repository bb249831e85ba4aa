"""The how-to page as its reader follows it: every file and every command of it, on one mesh. The
commands of the README follow, on its example without Docker.

A file is merged over those before it, as a reader adds its lines. A comment `prints TEXT` says what
the output contains.
"""

import asyncio
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from docs.site.commands import BLOCK
from meshd.cli.main import main
from tests.support.mesh import TestMesh
from tests.support.paths import ROOT
from tests.support.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.tool("curl")]
PAGE = (ROOT / "docs" / "how-to.md").read_text()
SEPARATE = re.compile(r"^meshd (?:up|run|exec|top|tap|events -f)\b")
"""Commands that set handlers of signals, which only the main thread of a process can do."""
WATCHING = re.compile(r"^meshd (?:top|tap|events -f)\b")
"""Commands that end when their user interrupts them."""
INTERRUPTED = 130
ONLY_IN_CONTAINERS = 125
"""Exit code of `meshd exec` for a local process."""
OF_THE_MACHINE = {"doctor", "ui"}
"""Commands that fail where the machine lacks something, or the web page was not built."""
SOONER = "services: {web: {deploy: {update_config: {monitor: 200ms}}}}"
"""A release of the page is watched for less than the default of five seconds."""


@dataclass
class Reader:
    """Someone who follows the page in a folder of a mesh."""

    mesh: TestMesh
    metrics: str
    files: list[str]

    def write(self, text: str) -> None:
        """Write a file of the page, and take it into account from now on."""
        name = f"{len(self.files)}.yml"
        (self.mesh.folder / name).write_text(text)
        self.files.append(name)

    async def run(self, line: str, code: int) -> str:
        """Run one line and return its output. Fails with the output if the exit code is another."""
        line = line.replace("127.0.0.1:8080", self.mesh.address)
        line = line.replace("127.0.0.1:9900", self.metrics)
        line = re.sub(
            r"^meshd up\b",
            f"meshd up --listen {self.mesh.address} --metrics {self.metrics} --workers 1",
            line,
        )
        if re.fullmatch(r"meshd [^|&<>;$]*", line) and not SEPARATE.match(line):
            return await self.run_here(line, code)
        codes = {code}
        if WATCHING.match(line):
            codes = {0, INTERRUPTED}
            line = f"timeout --signal INT --preserve-status 1.5 {line}"
        process = await asyncio.create_subprocess_exec(
            "bash", "-euo", "pipefail", "-c", line, cwd=self.mesh.folder,
            env={
                **os.environ,
                "PATH": f"{self.mesh.folder}:{os.environ['PATH']}",
                "MESHD_STATE": str(self.mesh.state),
                "COMPOSE_FILE": ":".join(self.files),
            },
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out = (await process.communicate())[0].decode()
        assert process.returncode in codes, f"{line}\n{out}"
        return out

    async def run_here(self, line: str, code: int) -> str:
        """Run a `meshd` command in this process, which takes less time than starting another."""
        environment = {"MESHD_STATE": str(self.mesh.state), "COMPOSE_FILE": ":".join(self.files)}
        arguments = shlex.split(line)[1:]
        result = await asyncio.to_thread(
            CliRunner().invoke, main, arguments, env=environment, catch_exceptions=False
        )
        codes = {0, 1} if arguments[0] in OF_THE_MACHINE else {code}
        assert result.exit_code in codes, f"{line}\n{result.output}"
        return result.output


@pytest.fixture
async def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reader]:
    monkeypatch.chdir(tmp_path)
    mesh = TestMesh(tmp_path, "process")
    program = tmp_path / "meshd"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m meshd "$@"\n')
    program.chmod(0o755)
    yield Reader(mesh, f"127.0.0.1:{free_port()}", [])
    await mesh.end()


def yaml_block(text: str) -> str:
    """Return the first file of a text."""
    return text.split("```yaml\n")[1].split("```", maxsplit=1)[0]


async def test_the_recipes(reader: Reader) -> None:
    reader.write(yaml_block(PAGE))
    reader.write(SOONER)
    ran = 0
    for _, language, body in BLOCK.findall(PAGE):
        if language == "yaml":
            reader.write(body)
            continue
        assert language == "sh", "a block of this page is a file or a command"
        for line in body.splitlines():
            command, _, comment = line.partition("  #")
            code = re.search(r"\bexit code (\d)", comment)
            out = await reader.run(command.strip(), int(code[1]) if code else 0)
            if printed := re.search(r"\bprints (.*)$", comment):
                assert printed[1] in out, f"{line}\n{out}"
            ran += 1
    assert ran > 30


async def test_the_commands_of_the_readme(reader: Reader) -> None:
    """They name the service `api`; the example that needs no engine calls its own `web`."""
    readme = (ROOT / "README.md").read_text()
    reader.write(yaml_block(readme.partition("**Without Docker**")[2]))
    reader.write(SOONER)
    await reader.run("meshd up --detach --runtime process", 0)
    await reader.run("curl -fsS -o /dev/null http://127.0.0.1:8080/", 0)
    reader.write("services: {web: {environment: {VERSION: '2'}}}")
    await reader.run("meshd deploy", 0)  # there is a release to undo
    block = readme.partition("In a second terminal:")[2].partition("\n\n")[2].partition("\n\n")[0]
    lines = [line.partition("  #")[0].strip() for line in block.splitlines()]
    assert len(lines) > 12
    for line in lines:
        code = ONLY_IN_CONTAINERS if line.startswith("meshd exec") else 0
        await reader.run(re.sub(r"\bapi\b", "web", line), code)
