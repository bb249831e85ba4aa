"""`meshd bootstrap`: make a Docker Swarm of hosts. `meshd node add` uses it for one more."""

from collections.abc import Mapping, Sequence
from typing import Final

import click

from meshd.cli import output
from meshd.cli.options import output_option
from meshd.cli.session import run_async
from meshd.model.errors import Rejected
from meshd.runtime.base import RuntimeFailure
from meshd.runtime.swarm.setup import hosts as setup
from meshd.runtime.swarm.setup.plan import (
    HostAction,
    HostStep,
    NodeRole,
    find_problems,
    make_plan,
    usual_managers,
)

PLANNED: Final = {
    HostAction.INIT: "would start the Swarm",
    HostAction.JOIN: "would join",
    HostAction.NOTHING: "is part of it",
}

advertise_option = click.option(
    "--advertise",
    "advertised",
    metavar="HOST=ADDRESS",
    multiple=True,
    help="Where other nodes reach HOST: an IP address, a host name, or a network interface of "
    "HOST. Default: the host in its name, else what its engine chooses.",
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


@click.command("bootstrap", short_help="Make a Docker Swarm of hosts.")
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
@click.option(
    "--managers",
    type=click.IntRange(1, 7),
    help="How many of the hosts become managers, the first ones. Default: 1, 3 of three hosts, 5 "
    "of seven.",
)
@advertise_option
@dry_run_option
@output_option
@run_async
async def command(
    hosts: tuple[str, ...],
    managers: int | None,
    advertised: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> int:
    """Make a Docker Swarm of each HOST: ssh://[USER@]HOST, tcp://HOST:PORT (with the TLS files of
    DOCKER_CERT_PATH), unix:///PATH, or the name of a Docker context.

    The first one becomes a manager if none of them is one. Hosts that are in the Swarm already stay
    what they are, so that the command can be repeated, with more hosts too. Nothing is changed
    before all hosts have answered. Join tokens are not shown.
    """
    count = managers or usual_managers(len(hosts))
    if count > len(hosts):
        raise click.UsageError(f"--managers {count}, but only {len(hosts)} hosts are given")
    roles = [
        NodeRole.MANAGER if number < count else NodeRole.WORKER for number in range(len(hosts))
    ]
    steps = await join_hosts(hosts, roles, advertised, dry_run, as_json)
    if not dry_run and not as_json:
        where = " or ".join(each.host for each in steps if each.role is NodeRole.MANAGER)
        output.print_line(
            f"\nInstall meshd on {where}, and run there: meshd up -f FILE --runtime swarm"
        )
    return output.OK


@click.command("add", short_help="Add a host to the Swarm.")
@click.argument("host", metavar="HOST")
@click.option(
    "--role",
    type=click.Choice([each.value for each in NodeRole]),
    default=NodeRole.WORKER.value,
    show_default=True,
    help="A manager keeps the state of the Swarm; a worker only runs replicas.",
)
@click.option(
    "--manager",
    metavar="HOST",
    default=setup.THIS_ENGINE,
    show_default=True,
    help="A manager of the Swarm.",
)
@advertise_option
@dry_run_option
@output_option
@run_async
async def add(
    host: str,
    role: str,
    manager: str,
    advertised: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> int:
    """Add HOST to the Swarm of a manager. HOST is as for `meshd bootstrap`: ssh://[USER@]HOST,
    tcp://HOST:PORT, unix:///PATH, or the name of a Docker context. `meshd rebalance` then moves
    replicas there.
    """
    roles = [NodeRole.MANAGER, NodeRole(role)]
    await join_hosts([manager, host], roles, advertised, dry_run, as_json, may_start=False)
    return output.OK


async def join_hosts(
    hosts: Sequence[str],
    roles: Sequence[NodeRole],
    advertised: Sequence[str],
    dry_run: bool,
    as_json: bool,
    may_start: bool = True,
) -> list[HostStep]:
    """Make one Swarm of hosts, and print what was done with each. Raises Rejected with everything
    that prevents it."""
    addresses = _read_addresses(advertised, hosts)
    try:
        async with setup.open_hosts(hosts, addresses) as engines:
            facts = [await each.read() for each in engines]
            if problems := find_problems(facts, may_start=may_start):
                raise Rejected("\n".join(problems))
            steps = make_plan(facts, roles)
            names = {each.host: each.name for each in facts}
            reached = {each.name: each.address for each in engines}
            if not dry_run:
                await setup.take_steps(
                    engines, steps, lambda step: _print(step, names, reached, False, as_json)
                )
    except RuntimeFailure as failure:
        raise Rejected(str(failure)) from failure
    if dry_run:
        for step in steps:
            _print(step, names, reached, True, as_json)
    return steps


def _read_addresses(advertised: Sequence[str], hosts: Sequence[str]) -> dict[str, str]:
    found = {}
    for each in advertised:
        name, sign, address = each.rpartition("=")
        if not sign or not address or name not in hosts:
            raise click.UsageError(
                f"--advertise {each} is not valid; expected HOST=ADDRESS, and HOST as given"
            )
        found[name] = address
    return found


def _print(
    step: HostStep,
    names: Mapping[str, str],
    reached: Mapping[str, str],
    planned: bool,
    as_json: bool,
) -> None:
    """Print a step that was taken, or that is planned. `names` and `reached` by host: its own name,
    and the address that it advertises; empty: its engine chooses."""
    action = PLANNED[step.action] if planned else str(step.action)
    joins = step.action is not HostAction.NOTHING
    address = reached[step.host]
    if as_json:
        found = {"host": step.host, "node": names[step.host], "role": step.role, "action": action}
        output.print_json_line({**found, "address": address} if joins else found)
        return
    text = f"{step.host}: {names[step.host]} {action} as {step.role}"
    if planned and joins:
        text += f", at {address or 'the address that its engine chooses'}"
    output.print_line(text)
