"""Read the lifecycle hooks of a service: `pre_start`, `post_start` and `pre_stop`.

Called by `meshd.spec.reader.service`. The executor of the reconciler runs them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from meshd.spec.model import ContainerHook, InitContainer
from meshd.spec.reader import environment, values
from meshd.spec.reader.context import ReadContext
from meshd.spec.source.cursor import Cursor, KeyTable


def read_container_hooks(at: Cursor, context: ReadContext) -> tuple[ContainerHook, ...]:
    """Read `post_start` or `pre_stop`."""
    return tuple(
        at.read_items(lambda c: ContainerHook.model_validate(_read_fields(c, context, {})))
    )


def read_init_containers(at: Cursor, context: ReadContext) -> tuple[InitContainer, ...]:
    """Read `pre_start`."""
    more = {"image": Cursor.read_string, "per_replica": Cursor.read_boolean}
    return tuple(
        at.read_items(lambda c: InitContainer.model_validate(_read_fields(c, context, more)))
    )


def _read_fields(
    at: Cursor, context: ReadContext, more: Mapping[str, Callable[[Cursor], object]]
) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def put(name: str, read: Callable[[Cursor], object]) -> Callable[[Cursor], None]:
        return lambda c: found.update({name: read(c)})

    def read_variables(c: Cursor) -> dict[str, str]:
        given = environment.read_environment(c, context)
        return {name: text for name, text in given.items() if text is not None}

    readers: dict[str, Callable[[Cursor], object]] = {
        "command": values.read_command,
        "user": Cursor.read_string,
        "privileged": Cursor.read_boolean,
        "working_dir": Cursor.read_string,
        "environment": read_variables,
        **more,
    }
    at.read_keys(KeyTable(read={name: put(name, read) for name, read in readers.items()}))
    if not found.get("command") and not found.get("image"):
        at.fail("command is missing; expected the command to run")
    return found
