"""`meshd inspect`: everything that is known about one service or replica."""

from pathlib import Path

import click
import msgspec

from meshd.api.dto import ReplicaStatus, Status
from meshd.cli import output
from meshd.cli.options import output_option, state_option
from meshd.cli.session import complete_service_or_replica, connect, find_service, run_async
from meshd.model.errors import NotFound
from meshd.model.event import Event

EVENTS_SHOWN = 20
"""Latest events that are shown."""
RELEASES_SHOWN = 5
"""Latest releases that are shown."""


@click.command("inspect", short_help="Show everything about a service or replica.")
@click.argument("name", metavar="SERVICE|REPLICA", shell_complete=complete_service_or_replica)
@output_option
@state_option
@run_async
async def command(name: str, as_json: bool, state: Path) -> int:
    """Show everything about a service or replica: its state, for a service also the latest
    releases and the decision of the autoscaler, and the latest events."""
    async with connect(state) as client:
        status = await client.status()
        replica = find_replica(status, name)
        found: dict[str, object]
        if replica is not None:
            project, _, service = replica.service.rpartition("/")
            found = {"replica": replica}
        else:
            one = find_service(status, name)
            project, service = one.project, one.name
            found = {
                "service": one,
                "releases": await client.releases(project, service, RELEASES_SHOWN),
                "decision": next(iter(await client.decisions(project, service, 0.0, 1)), None),
            }

        def concerns(event: Event) -> bool:
            if replica is not None:
                return event.replica == replica.name
            return (event.project, event.service) == (project, service)

        found["events"], _ = await client.last_events(EVENTS_SHOWN, concerns)
    if not as_json:
        output.choose_format("yaml")
        found = without_defaults(found)
    output.print_json(found)
    return output.OK


def find_replica(status: Status, name: str) -> ReplicaStatus | None:
    """Return a replica by its name; None if a service or nothing has it. Raises NotFound if
    several replicas have it."""
    if any(name in (each.name, f"{each.project}/{each.name}") for each in status.services):
        return None
    replicas = [replica for each in status.services for replica in each.replicas]
    found = [replica for replica in replicas if replica.name == name]
    if len(found) > 1:
        raise NotFound(f"{name!r} is ambiguous: {', '.join(each.service for each in found)}")
    return found[0] if found else None


def without_defaults(value: object) -> dict[str, object]:
    """Return a value for people: without what is empty."""
    plain = msgspec.to_builtins(value)
    shown = _drop_empty(plain)
    assert isinstance(shown, dict)
    return shown


def _drop_empty(plain: object) -> object:
    if isinstance(plain, dict):
        kept = {key: _drop_empty(each) for key, each in plain.items()}
        return {key: each for key, each in kept.items() if each not in (None, "", [], {})}
    if isinstance(plain, list | tuple):
        return [_drop_empty(each) for each in plain]
    return plain
