"""Print a plan: its operations, then their impact. Used by `diff`, `deploy --dry-run` and `up`."""

from collections.abc import Sequence
from typing import Any

from meshd.api.client import ApiFailure, Client
from meshd.api.dto import PlanPreview
from meshd.cli import output
from meshd.model.errors import NotFound
from meshd.model.volume import describe_abandoned


def print_plan(preview: PlanPreview) -> None:
    """Print a plan for people."""
    warn_unsupported(preview.unsupported)
    output.print_line(preview.plan or "nothing to do")
    if preview.impact:
        output.print_line("")
    for line in preview.impact:
        output.print_line(line)
    for line in preview.missing:
        output.print_error(f"meshd: a deployment would be rejected: {line}")


def plan_json(project: str, preview: PlanPreview) -> dict[str, Any]:
    """Return a plan for programs."""
    return {
        "project": project,
        "plan": preview.plan.splitlines(),
        "outlook": list(preview.impact),
        "lacks": list(preview.unsupported),
        "missing": list(preview.missing),
    }


def warn_unsupported(features: Sequence[str]) -> None:
    """Print a warning for each service that uses a feature which this runtime does not support."""
    for line in features:
        output.print_error(f"warning: {line}")


async def warn_unused_volumes(client: Client, project: str) -> None:
    """Print a line for each volume of the project that no service mounts any more."""
    try:
        volumes = await client.volumes()
    except (ApiFailure, NotFound):
        return  # a daemon of an earlier version, or an engine that does not answer
    for volume in volumes:
        if volume.project == project and volume.state == "unused":
            output.print_error(describe_abandoned(volume.name))
