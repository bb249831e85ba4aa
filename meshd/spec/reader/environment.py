"""Read the environment variables of a service: `environment` and `env_file`.

Called by `meshd.spec.reader.service`.
"""

from collections.abc import Mapping

from meshd.spec.reader import host_files, values
from meshd.spec.reader.context import ReadContext
from meshd.spec.source.cursor import Cursor


def read_environment(at: Cursor, context: ReadContext) -> dict[str, str | None]:
    """Read `environment`. A name without a value gets its value from meshd's own environment, and
    None if it is not set there: then `env_file` does not set it either."""
    found: dict[str, str | None] = {}
    for name, value in values.read_pairs(at):
        if not name or "=" in name or "\0" in name:
            at.add_problem(
                f"{name!r} is not a valid variable name; expected a name without = and NUL"
            )
        elif value.node.value is None:
            found[name] = context.environment.get(name)
        elif (text := value.attempt(Cursor.read_string)) is not None:
            found[name] = text
    return found


def read_env_files(
    at: Cursor, context: ReadContext, environment: Mapping[str, str]
) -> dict[str, str]:
    """Read `env_file`: one or more files; later files take precedence, and may use the variables of
    earlier ones and of the service's `environment`."""
    found: dict[str, str] = {}
    known = {**environment, **context.environment}

    def add(entry: Cursor) -> None:
        found.update(host_files.read_env_file(entry, context.base, known, found))

    for entry in at.elements() if at.node.sequence is not None else (at,):
        entry.attempt(add)
    return found
