"""Read the environment variables of a service: `environment` and `env_file`.

Called by `meshd.spec.reader.service`.
"""

from meshd.spec.reader import host_files, values
from meshd.spec.reader.context import ReadContext
from meshd.spec.source.cursor import Cursor


def read_environment(at: Cursor, context: ReadContext) -> dict[str, str]:
    """Read `environment`. A name without a value gets its value from meshd's own environment, and
    is left out if it is not set there."""
    found: dict[str, str] = {}
    for name, value in values.read_pairs(at):
        if not name or "=" in name or "\0" in name:
            at.add_problem(
                f"{name!r} is not a valid variable name; expected a name without = and NUL"
            )
        elif value.node.value is None:
            if name in context.environment:
                found[name] = context.environment[name]
        elif (text := value.attempt(Cursor.read_string)) is not None:
            found[name] = text
    return found


def read_env_files(at: Cursor, context: ReadContext) -> dict[str, str]:
    """Read `env_file`: one or more files; later files take precedence."""
    found: dict[str, str] = {}
    for entry in at.elements() if at.node.sequence is not None else (at,):
        found |= (
            entry.attempt(lambda c: host_files.read_env_file(c, context.base, context.environment))
            or {}
        )
    return found
