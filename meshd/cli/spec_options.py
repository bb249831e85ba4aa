"""Options that name a Compose file, and loading it before anything is started.

Used by `up`, `deploy`, `diff`, `config` and `down`. The file is read by `meshd.spec.compose`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
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

_ENV_FILES: Final = f"{__name__}.env_files"
"""Key of the env files in the metadata of a click context."""
C = TypeVar("C", bound=Callable[..., Any])
DEFAULT_FILES: Final = (
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
)
"""Names that Docker Compose looks for, in its order."""
OVERRIDE_FILES: Final = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
"""Names of a file next to a default file that is merged over it, in the order of Docker Compose."""


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
    """`-f`, `--env-file`, `--project` and `--profile`, as `files`, `project` and `profiles`.

    Env files are in the context, see `load`.
    """
    for option in (
        click.option(
            "--env-file",
            "env_files",
            multiple=True,
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            expose_value=False,
            callback=_keep_env_files,
            help="File of variables for ${…}, repeatable. Default: .env next to the first file.",
        ),
        click.option(
            "--profile", "profiles", multiple=True, metavar="NAME", help="Enable a Compose profile."
        ),
        project_option("Project name. Default: the name in the file."),
        file_option(
            "Compose file. Later files are merged over earlier ones. Default: COMPOSE_FILE, or "
            "compose.yaml, compose.yml or docker-compose.yml in the current directory or the "
            "closest one above it, with compose.override.yml."
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


def _keep_env_files(
    context: click.Context, _option: click.Parameter, value: tuple[Path, ...]
) -> None:
    context.meta[_ENV_FILES] = value


def default_files(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the Compose files to use without `-f`, as Docker Compose finds them; empty if there
    are none.

    They are those of COMPOSE_FILE, or the default file in the current directory or the closest one
    above it, with its override file.
    """
    if listed := environment.get("COMPOSE_FILE"):
        separator = environment.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        return tuple(Path(name) for name in listed.split(separator) if name)
    here = Path()
    for directory in (here, *Path.cwd().parents):
        found = _first_file(directory, DEFAULT_FILES)
        if found is not None:
            override = _first_file(directory, OVERRIDE_FILES)
            return (found,) if override is None else (found, override)
    return ()


def _first_file(directory: Path, names: Sequence[str]) -> Path | None:
    return next((directory / name for name in names if (directory / name).is_file()), None)


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
    try:
        env_files = _env_files()
        chosen = files or default_files(compose.load_dotenv(env_files, os.environ))
        if not chosen:
            raise click.UsageError(
                "no -f FILE given, and neither the current directory nor one above it has "
                f"{', '.join(DEFAULT_FILES)}"
            )
        loaded = compose.load(
            chosen,
            project=project,
            environment=os.environ,
            profiles=profiles,
            env_files=env_files,
        )
    except SpecError as error:
        for problem in error.problems:
            output.print_error(f"error: {problem}")
        raise SystemExit(output.USAGE) from error
    for warning in loaded.warnings:
        output.print_error(f"warning: {warning}")
    _check_size(chosen, loaded.project)
    return loaded


def _env_files() -> tuple[Path, ...] | None:
    """Return the files of `--env-file`, or else of COMPOSE_ENV_FILES; None for the default."""
    context = click.get_current_context(silent=True)
    given: tuple[Path, ...] = context.meta.get(_ENV_FILES, ()) if context is not None else ()
    if not given:
        listed = os.environ.get("COMPOSE_ENV_FILES", "")
        given = tuple(Path(name) for name in listed.split(",") if name)
    return given or None


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
