"""Options that name a Compose file, and loading it before anything is started.

Used by `up`, `deploy`, `diff` and `down`. The file is read by `meshd.spec.compose`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from meshd.api.limits import MAX_BODY_BYTES
from meshd.cli import output
from meshd.cli.options import project_option
from meshd.spec.errors import SpecError
from meshd.spec.model import Project

if TYPE_CHECKING:
    from meshd.spec.compose import LoadedProject

C = TypeVar("C", bound=Callable[..., Any])
DEFAULT_FILES: Final = (
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
)
"""Names that Docker Compose looks for, in its order."""


def file_option(help: str) -> Callable[[C], C]:
    """`-f FILE`, repeatable, as `files`."""
    return click.option(
        "-f",
        "--file",
        "files",
        multiple=True,
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help=help,
    )


def spec_options(command: C) -> C:
    """`-f`, `--project` and `--profile`, as `files`, `project` and `profiles`."""
    for option in (
        click.option(
            "--profile", "profiles", multiple=True, metavar="NAME", help="Enable a Compose profile."
        ),
        project_option("Project name. Default: the name in the file."),
        file_option(
            "Compose file. Later files are merged over earlier ones. Default: compose.yaml, "
            "compose.yml or docker-compose.yml in the current directory."
        ),
    ):
        command = option(command)
    return command


def take_over_option(command: C) -> C:
    """`--take-over`, as `take_over`."""
    return click.option(
        "--take-over",
        is_flag=True,
        help="Take the project over from another meshd on this engine that does not run.",
    )(command)


def default_files() -> tuple[Path, ...]:
    """Return the Compose file of the current directory; empty if there is none."""
    return next(((Path(name),) for name in DEFAULT_FILES if Path(name).is_file()), ())


def load_project(
    files: tuple[Path, ...], project: str | None = None, profiles: tuple[str, ...] = ()
) -> Project:
    """Return the project that the files describe. Prints warnings. If there are errors, prints one
    line each to standard error and exits with code 2."""
    return load(files, project, profiles).project


def load(
    files: tuple[Path, ...], project: str | None = None, profiles: tuple[str, ...] = ()
) -> "LoadedProject":
    """Like `load_project`, but include the settings of the proxy as a whole."""
    from meshd.spec import compose

    try:
        os.getcwd()
    except FileNotFoundError as error:
        output.print_error(
            "error: the current directory was deleted; change to a directory that exists"
        )
        raise SystemExit(output.USAGE) from error
    chosen = files or default_files()
    if not chosen:
        raise click.UsageError(
            f"no -f FILE given, and the current directory has no {', '.join(DEFAULT_FILES)}"
        )
    try:
        loaded = compose.load(chosen, project=project, environment=os.environ, profiles=profiles)
    except SpecError as error:
        for problem in error.problems:
            output.print_error(f"error: {problem}")
        raise SystemExit(output.USAGE) from error
    for warning in loaded.warnings:
        output.print_error(f"warning: {warning}")
    _check_size(chosen, loaded.project)
    return loaded


def _check_size(files: tuple[Path, ...], project: Project) -> None:
    """Exit with an error that names the largest service if the daemon would refuse the project
    for its size."""
    total = len(project.model_dump_json().encode())
    if total < MAX_BODY_BYTES:
        return
    sizes = {each.name: len(each.model_dump_json().encode()) for each in project.services}
    largest = max(sizes, key=sizes.__getitem__)
    output.print_error(
        f"error: {', '.join(map(str, files))}: the project {project.name} is too large for the "
        f"daemon: {output.format_bytes(total)}, of that {output.format_bytes(sizes[largest])} in "
        f"the service {largest}; expected less than {output.format_bytes(MAX_BODY_BYTES)}: move "
        "long texts to the image or to mounted files, or split the project"
    )
    raise SystemExit(output.USAGE)
