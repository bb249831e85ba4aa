"""How a plan is told: its operations, then what they mean on the way."""

from collections.abc import Sequence
from typing import Any

from meshd.api.dto import PlanPreview
from meshd.cli import output


def tell_plan(planned: PlanPreview) -> None:
    """For people."""
    tell_lacks(planned.lacks)
    output.say(planned.plan or "nothing to do")
    if planned.outlook:
        output.say("")
    for line in planned.outlook:
        output.say(line)


def planned_json(project: str, planned: PlanPreview) -> dict[str, Any]:
    """For programs."""
    return {
        "project": project,
        "plan": planned.plan.splitlines(),
        "outlook": list(planned.outlook),
        "lacks": list(planned.lacks),
    }


def tell_lacks(lacks: Sequence[str]) -> None:
    """What services run without on this runtime."""
    for line in lacks:
        output.complain(f"warning: {line}")
