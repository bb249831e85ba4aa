"""Read `deploy` of a service: replicas, resources, restarts, updates and placement.

Called by `meshd.spec.reader.service`.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Final

from meshd.spec.model.base import MAX_REPLICAS
from meshd.spec.reader import engine_options, unsupported_keys
from meshd.spec.reader.field_values import FieldValues
from meshd.spec.source.cursor import Cursor, KeyTable

CONSTRAINT: Final = re.compile(
    r"\s*(node\.hostname|(node|engine)\.labels\.[\w.-]+)\s*(==|!=)\s*[\w.-]+\s*"
)

SWARM_CONSTRAINT: Final = re.compile(
    r"\s*node\.(id|role|platform\.(os|arch))\s*(==|!=)\s*[\w.-]+\s*"
)
_SPREAD: Final = re.compile(r"(node|engine)\.labels\.[\w.-]+")


def deploy_keys(fields: FieldValues) -> KeyTable:
    """Return the keys of `deploy`; their readers store values in `fields`."""
    return KeyTable(
        read={
            "mode": partial(_read_mode, fields),
            "replicas": partial(fields.set_value, "replicas", read=read_replicas),
            "resources": partial(_read_resources, fields),
            "restart_policy": partial(_read_restart_policy, fields),
            "update_config": partial(_read_update_config, fields),
            "placement": partial(_read_placement, fields),
            "endpoint_mode": _read_endpoint_mode,
        },
        refused={"job": "meshd runs only services; use x-mesh.schedule for one-off jobs"},
        warned=unsupported_keys.DEPLOY_WARNED,
    )


_CONDITIONS: Final = {
    "no": "none",
    "always": "any",
    "unless-stopped": "any",
    "on-failure": "on-failure",
}
"""The conditions of a restart by the words of `restart`."""


def read_replicas(at: Cursor) -> int:
    """Read a number of replicas."""
    return at.read_integer(high=MAX_REPLICAS)


def read_restart(fields: FieldValues, at: Cursor) -> None:
    """Read `restart` of a service, an older form of `deploy.restart_policy`, which takes
    precedence as in Docker Compose."""
    word, _, attempts = at.read_string().partition(":")
    conditions = {**_CONDITIONS, "false": "none"}
    if word not in conditions:
        at.fail(f"{word!r} is not valid; expected no, always, on-failure or unless-stopped")
    if attempts:
        if word != "on-failure" or not attempts.isdecimal():
            at.fail(f"{at.node.text!r} is not valid; expected e.g. on-failure:3")
        fields.set_value("restart.max_attempts", at, read=lambda _: int(attempts), yields=True)
    fields.set_value("restart.condition", at, read=lambda _: conditions[word], yields=True)


def _read_mode(fields: FieldValues, at: Cursor) -> None:
    """Read `mode`. On one engine, `global` and `global-job` are one replica; a Swarm runs one of
    `global` on each node."""
    fields.set_value(
        "mode",
        at,
        read=lambda c: c.read_one_of("replicated", "global", "replicated-job", "global-job"),
    )
    if str(fields.values["mode"]).startswith("global"):
        fields.set_value("replicas", at, read=lambda _: 1)


def _read_resources(fields: FieldValues, at: Cursor) -> None:
    def limit(field: str, read: Callable[[Cursor], object]) -> Callable[[Cursor], None]:
        return partial(fields.set_value, f"resources.{field}", read=read)

    limits = KeyTable(
        {
            "cpus": limit("cpus", Cursor.read_number),
            "memory": limit("memory", Cursor.read_size),
            "pids": limit("pids", partial(Cursor.read_integer, low=-1)),
        }
    )
    reservations = KeyTable(
        {
            "cpus": limit("reserved_cpus", Cursor.read_number),
            "memory": limit("reserved_memory", Cursor.read_size),
            "devices": partial(
                fields.set_value,
                "options.gpus",
                read=lambda c: tuple(c.read_items(engine_options.read_device_request)),
            ),
        },
        warned=unsupported_keys.RESOURCE_WARNED,
    )
    at.read_keys(
        KeyTable(
            {
                "limits": lambda c: c.read_keys(limits),
                "reservations": lambda c: c.read_keys(reservations),
            }
        )
    )


def _read_condition(at: Cursor) -> str:
    """Read `condition`; the words of `restart` are accepted too."""
    return _CONDITIONS.get(at.node.text, "") or at.read_one_of("none", "on-failure", "any")


def _read_restart_policy(fields: FieldValues, at: Cursor) -> None:
    at.read_keys(
        KeyTable(
            read={
                "condition": partial(
                    fields.set_value,
                    "restart.condition",
                    read=_read_condition,
                ),
                "delay": partial(fields.set_value, "restart.delay", read=Cursor.read_duration),
                "window": partial(fields.set_value, "restart.window", read=Cursor.read_duration),
                "max_attempts": partial(
                    fields.set_value, "restart.max_attempts", read=Cursor.read_integer
                ),
            }
        )
    )


def _read_update_config(fields: FieldValues, at: Cursor) -> None:
    put = fields.set_value
    at.read_keys(
        KeyTable(
            read={
                "parallelism": partial(put, "update.parallelism", read=Cursor.read_integer),
                "order": partial(
                    put, "update.order", read=lambda c: c.read_one_of("start-first", "stop-first")
                ),
                "delay": partial(put, "update.delay", read=Cursor.read_duration),
                "monitor": partial(put, "update.monitor", read=Cursor.read_duration),
                "failure_action": partial(
                    put,
                    "update.failure_action",
                    read=lambda c: c.read_one_of("pause", "continue", "rollback"),
                ),
                "max_failure_ratio": partial(
                    put, "update.max_failure_ratio", read=lambda c: c.read_number(high=1)
                ),
            }
        )
    )


def _read_placement(fields: FieldValues, at: Cursor) -> None:
    put = fields.set_value
    at.read_keys(
        KeyTable(
            read={
                "constraints": partial(_read_constraints, fields),
                "preferences": partial(
                    put, "spread", read=lambda c: c.read_items(_read_preference)
                ),
                "max_replicas_per_node": partial(put, "max_per_node", read=Cursor.read_integer),
            },
        )
    )


def _read_constraints(fields: FieldValues, at: Cursor) -> None:
    """Read constraints. Those about what only a Swarm has are a separate field, because another
    runtime runs the service without them."""
    texts = at.read_items(_read_constraint)

    def put(name: str, pattern: re.Pattern[str]) -> None:
        found = [text for text in texts if pattern.fullmatch(text)]
        if found:
            fields.set_value(name, at, read=lambda _: found)

    put("placement", CONSTRAINT)
    put("swarm_constraints", SWARM_CONSTRAINT)


def _read_constraint(at: Cursor) -> str:
    text = at.read_string()
    if not (CONSTRAINT.fullmatch(text) or SWARM_CONSTRAINT.fullmatch(text)):
        at.fail(
            f"{text!r} is not a valid constraint; expected e.g. node.labels.disk==ssd, "
            "node.hostname!=host1 or node.role==worker"
        )
    return text


def _read_preference(at: Cursor) -> str:
    """Read one preference: the label over whose values replicas are spread."""
    labels: list[str] = []

    def read_label(child: Cursor) -> None:
        labels.append(text := child.read_string())
        if not _SPREAD.fullmatch(text):
            child.fail(f"{text!r} is not a label of nodes; expected e.g. node.labels.zone")

    at.read_keys(KeyTable(read={"spread": read_label}))
    if not labels:
        at.fail("a preference needs the key spread, e.g. spread: node.labels.zone")
    return labels[0]


def _read_endpoint_mode(at: Cursor) -> None:
    """Read `endpoint_mode`. A name always has the addresses of all replicas, as with `dnsrr`."""
    if at.read_one_of("vip", "dnsrr") == "vip":
        at.add_warning(
            "endpoint_mode: vip has no effect: the name of a plain service has the addresses of "
            "all its containers, and the mesh balances the others"
        )
