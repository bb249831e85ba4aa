"""The status of every project of the daemon."""

from meshd.api.dto import ProjectStatus, ServiceStatus
from meshd.control.status import project_statuses
from meshd.model.rollout import StoredProject
from meshd.spec.model import Project, Service

TRACES = "http://viewer/{trace_id}"


def stored(name: str, leaving: bool = False) -> StoredProject:
    project = Project(
        name=name, services=(Service(name="web"), Service(name="db")), trace_url=TRACES
    )
    return StoredProject(project, "me", 10.0, leaving, "")


def service(project: str, ready: int, wanted: int) -> ServiceStatus:
    return ServiceStatus(project, "web", wanted, ready, ready, 1, 9, "r1")


def test_state_of_each_project() -> None:
    known = {
        "shop": stored("shop"),
        "bank": stored("bank", leaving=True),
        "lost": stored("lost"),
    }
    services = [service("shop", 1, 2), service("shop", 2, 2), service("old", 3, 3)]
    found = project_statuses(
        known, services, frozenset({"lost"}), {"lost": "held by b", "theirs": "held by c"}
    )
    assert found == (
        ProjectStatus("bank", "going down", 2, 0, 0, "me", 10.0, "", TRACES),
        ProjectStatus("lost", "elsewhere", 2, 0, 0, "me", 10.0, "held by b", TRACES),
        ProjectStatus("old", "adopted", 1, 3, 3),
        ProjectStatus("shop", "up", 2, 3, 4, "me", 10.0, "", TRACES),
        ProjectStatus("theirs", "elsewhere", 0, 0, 0, detail="held by c"),
    )
