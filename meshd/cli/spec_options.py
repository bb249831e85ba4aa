"""The options that name a spec, and reading it before anything is started."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from meshd.api.limits import MAX_BODY_BYTES
from meshd.cli import output
from meshd.spec.errors import SpecError
from meshd.spec.model import Project

if TYPE_CHECKING:
    from meshd.spec.compose import LoadedProject

C = TypeVar("C", bound=Callable[..., Any])
USUAL: Final = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")


def spec_options(command: C) -> C:
    """`-f`, `--project` and `--profile`, as `files`, `project` and `profiles`."""
    for option in (
        click.option("--profile", "profiles", multiple=True, help="Turn a Compose profile on."),
        click.option("--project", metavar="NAME", help="Instead of the file's own name."),
        click.option("-f", "--file", "files", multiple=True, metavar="FILE",
                     type=click.Path(dir_okay=False, path_type=Path),
                     help="Compose file; later ones are merged over earlier ones. Default: "
                     "compose.yaml, compose.yml or docker-compose.yml here."),
    ):  # fmt: skip
        command = option(command)
    return command


def take_over_option(command: C) -> C:
    """`--take-over`, as `take_over`."""
    return click.option(
        "--take-over",
        is_flag=True,
        help="Also where another meshd, which does not run, holds the project on this engine.",
    )(command)


def usual_files() -> tuple[Path, ...]:
    """The Compose file of this directory; empty when there is none."""
    return next(((Path(name),) for name in USUAL if Path(name).is_file()), ())


def load(
    files: tuple[Path, ...], project: str | None = None, profiles: tuple[str, ...] = ()
) -> Project:
    """The project that the files describe, warnings told. Every problem is a line on standard
    error, and the end (exit code 2): nothing is started then."""
    return load_all(files, project, profiles).project


def load_all(
    files: tuple[Path, ...], project: str | None = None, profiles: tuple[str, ...] = ()
) -> "LoadedProject":
    """The same, with what the files say of the proxy as a whole."""
    from meshd.spec import compose

    try:
        os.getcwd()
    except FileNotFoundError as error:
        output.complain("error: the current directory was deleted; change to one that is there")
        raise SystemExit(output.USAGE) from error
    chosen = files or usual_files()
    if not chosen:
        raise click.UsageError(f"no -f FILE given, and none of {', '.join(USUAL)} is here")
    try:
        loaded = compose.load(chosen, project=project, environment=os.environ, profiles=profiles)
    except SpecError as error:
        for problem in error.problems:
            output.complain(f"error: {problem}")
        raise SystemExit(output.USAGE) from error
    for warning in loaded.warnings:
        output.complain(f"warning: {warning}")
    _check_size(chosen, loaded.project)
    return loaded


def _check_size(files: tuple[Path, ...], project: Project) -> None:
    """What the daemon would not take is not sent; it is said what is large."""
    whole = len(project.model_dump_json().encode())
    if whole < MAX_BODY_BYTES:
        return
    sizes = {each.name: len(each.model_dump_json().encode()) for each in project.services}
    largest = max(sizes, key=sizes.__getitem__)
    output.complain(
        f"error: {', '.join(map(str, files))}: the project {project.name} is too large for the "
        f"daemon: {output.size(whole)}, of that {output.size(sizes[largest])} in the service "
        f"{largest}; expected less than {output.size(MAX_BODY_BYTES)}: move "
        "long texts to the image or to mounted files, or split the project"
    )
    raise SystemExit(output.USAGE)
