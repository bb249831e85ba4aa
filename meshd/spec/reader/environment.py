"""The variables that a service's replicas get: `environment` and `env_file`."""

from meshd.spec.reader import host_files, values
from meshd.spec.reader.context import ReadContext
from meshd.spec.source.cursor import Cursor


def read_environment(at: Cursor, context: ReadContext) -> dict[str, str]:
    """`environment`; a name without a value is taken from where meshd was called, if it is
    there."""
    found: dict[str, str] = {}
    for name, value in values.read_pairs(at):
        if not name or "=" in name or "\0" in name:
            at.add_problem(f"{name!r} is no name of a variable; expected one without = and NUL")
        elif value.node.value is None:
            if name in context.environment:
                found[name] = context.environment[name]
        elif (text := value.attempt(Cursor.read_string)) is not None:
            found[name] = text
    return found


def read_env_files(at: Cursor, context: ReadContext) -> dict[str, str]:
    """`env_file`: one file or several, later ones over earlier ones."""
    found: dict[str, str] = {}
    for entry in at.elements() if at.node.sequence is not None else (at,):
        found |= (
            entry.attempt(lambda c: host_files.read_env_file(c, context.base, context.environment))
            or {}
        )
    return found
