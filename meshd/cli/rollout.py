"""`meshd rollout`: how a new revision replaces the old one."""

from pathlib import Path

import click

from meshd.api.model import Event
from meshd.cli import output, tables
from meshd.cli.session import complete_service, connect, find_service, state_option, talks
from meshd.telemetry.events import ROLLOUT, Kind


@click.group("rollout")
def command() -> None:
    """See how new revisions replace old ones."""


@command.command("status")
@click.argument("service", required=False, shell_complete=complete_service)
@output.output_option
@state_option
@talks
async def status(service: str | None, as_json: bool, state: Path) -> int:
    """Show which revisions run. Exit code 1 while a deployment has failed."""
    async with connect(state) as client:
        whole = await client.status()
        services = [find_service(whole, service)] if service else list(whole.services)
        results = [await client.progress(p) for p in sorted({s.project for s in services})]
    if as_json:
        output.print_json({"deployments": results, "services": services})
    else:
        rows = [
            [
                each.name,
                each.state,
                each.revision[:12],
                str(sum(replica.revision == each.revision for replica in each.replicas)),
                str(sum(replica.revision != each.revision for replica in each.replicas)),
            ]
            for each in services
        ]
        output.print_table(("service", "state", "revision", "new", "old"), rows)
        for result in results:
            state_word = ("done" if result.ok else "failed") if result.done else "under way"
            output.say(f"{result.project}: {state_word} {result.detail}".rstrip())
    return output.FAILED if any(r.done and not r.ok for r in results) else output.OK


@command.command("history")
@click.argument("service", required=False, shell_complete=complete_service)
@click.option("-n", "--tail", type=click.IntRange(1, 10_000), default=50, show_default=True)
@output.output_option
@state_option
@talks
async def history(service: str | None, tail: int, as_json: bool, state: Path) -> int:
    """Show deployments and rollouts, oldest first."""

    def wanted(event: Event) -> bool:
        about = service in (None, event.service, f"{event.project}/{event.service}")
        return (about and event.kind.startswith(ROLLOUT)) or event.kind == Kind.DEPLOY

    async with connect(state) as client:
        events, _ = await client.last_events(tail, wanted)
    if as_json:
        output.print_json(events)
    else:
        output.print_table(tables.EVENT_COLUMNS, map(tables.event_row, events))
    return output.OK
