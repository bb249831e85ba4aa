"""`deploy` of a service: how many replicas, what they may use, how they are replaced."""

import re
from collections.abc import Callable
from functools import partial
from typing import Final

from meshd.spec.model.base import MOST_REPLICAS
from meshd.spec.reader import unsupported_keys
from meshd.spec.reader.draft import Draft
from meshd.spec.source.cursor import Cursor, Keys

CONSTRAINT: Final = re.compile(
    r"\s*(node\.hostname|(node|engine)\.labels\.[\w.-]+)\s*(==|!=)\s*[\w.-]+\s*"
)


def keys(draft: Draft) -> Keys:
    """The keys of `deploy`."""
    return Keys(
        read={
            "mode": _mode,
            "replicas": partial(draft.put, "replicas", read=replicas),
            "resources": partial(_resources, draft),
            "restart_policy": partial(_restart, draft),
            "update_config": partial(_update, draft),
            "placement": partial(_placement, draft),
        },
        refused={"job": "meshd runs services only"},
        warned=unsupported_keys.DEPLOY_WARNED,
    )


def replicas(at: Cursor) -> int:
    """How many replicas of a service."""
    return at.integer(high=MOST_REPLICAS)


def restart(draft: Draft, at: Cursor) -> None:
    """The service's own `restart`, an older word for `deploy.restart_policy.condition`."""
    word, _, attempts = at.string().partition(":")
    conditions = {
        "no": "none",
        "false": "none",
        "always": "any",
        "unless-stopped": "any",
        "on-failure": "on-failure",
    }
    if word not in conditions:
        at.fail(f"{word!r} is not known; expected no, always, on-failure or unless-stopped")
    if attempts:
        at.warn(
            f"the number of attempts is not kept; {unsupported_keys.RESTART_WARNED['max_attempts']}"
        )
    draft.put("restart.condition", at, read=lambda _: conditions[word])


def _mode(at: Cursor) -> None:
    if at.string() != "replicated":
        at.fail(f"{at.node.text!r} is not supported; expected replicated")


def _resources(draft: Draft, at: Cursor) -> None:
    def limit(field: str, read: Callable[[Cursor], object]) -> Callable[[Cursor], None]:
        return partial(draft.put, f"resources.{field}", read=read)

    refused = unsupported_keys.RESOURCE_REFUSED
    limits = Keys(
        {
            "cpus": limit("cpus", Cursor.number),
            "memory": limit("memory", Cursor.size),
            "pids": limit("pids", Cursor.integer),
        },
        refused,
    )
    reservations = Keys(
        {
            "cpus": limit("reserved_cpus", Cursor.number),
            "memory": limit("reserved_memory", Cursor.size),
        },
        refused,
    )
    at.keys(
        Keys({"limits": lambda c: c.keys(limits), "reservations": lambda c: c.keys(reservations)})
    )


def _restart(draft: Draft, at: Cursor) -> None:
    at.keys(
        Keys(
            read={
                "condition": partial(
                    draft.put,
                    "restart.condition",
                    read=lambda c: c.one_of("none", "on-failure", "any"),
                ),
                "delay": partial(draft.put, "restart.delay", read=Cursor.duration),
                "window": partial(draft.put, "restart.window", read=Cursor.duration),
            },
            warned=unsupported_keys.RESTART_WARNED,
        )
    )


def _update(draft: Draft, at: Cursor) -> None:
    put = draft.put
    at.keys(
        Keys(
            read={
                "parallelism": partial(put, "update.parallelism", read=Cursor.integer),
                "order": partial(
                    put, "update.order", read=lambda c: c.one_of("start-first", "stop-first")
                ),
                "delay": partial(put, "update.delay", read=Cursor.duration),
                "monitor": partial(put, "update.monitor", read=Cursor.duration),
                "failure_action": partial(
                    put,
                    "update.failure_action",
                    read=lambda c: c.one_of("pause", "continue", "rollback"),
                ),
                "max_failure_ratio": partial(
                    put, "update.max_failure_ratio", read=lambda c: c.number(high=1)
                ),
            }
        )
    )


def _placement(draft: Draft, at: Cursor) -> None:
    at.keys(
        Keys(
            read={
                "constraints": partial(draft.put, "placement", read=lambda c: c.each(_constraint))
            },
            refused=unsupported_keys.PLACEMENT_REFUSED,
        )
    )


def _constraint(at: Cursor) -> str:
    text = at.string()
    if not CONSTRAINT.fullmatch(text):
        at.fail(
            f"{text!r} is no constraint; expected one like node.labels.disk==ssd "
            "or node.hostname!=one"
        )
    return text
