"""`meshd check`: say what each service of a Compose file is under meshd. It needs no daemon.

`meshd.spec.advice` finds what it prints.
"""

from pathlib import Path

import click

from meshd.cli import output, spec_options
from meshd.cli.options import output_option


@click.command("check", short_help="Say what each service is under meshd.")
@spec_options.spec_options
@output_option
def command(
    files: tuple[Path, ...], project: str | None, profiles: tuple[str, ...], as_json: bool
) -> None:
    """Check a Compose file, and say for each service whether it is plain, HTTP or TCP, how others
    reach it, and what differs from Docker Compose. Suggest a line of x-mesh where the mesh could
    balance, scale and update a service.

    Warnings and errors go to standard error. Exit codes: 0 valid, 2 refused.
    """
    from meshd.spec import advice

    found = spec_options.load(files, project, profiles).project
    kinds = advice.describe_kinds(found)
    suggestions = advice.suggest_mesh(found)
    differences = advice.list_differences(found.services, found.networks)
    if as_json:
        output.print_json(
            {"services": kinds, "suggestions": suggestions, "differences": differences}
        )
        return
    output.print_table(
        ("service", "kind", "reached at", "why"),
        [(each.service, each.kind, ", ".join(each.reached), each.why) for each in kinds],
    )
    if suggestions:
        output.print_line("\nThe mesh could balance, scale and update these without a gap:")
        for each in suggestions:
            output.print_line(f"  {each.service}: {each.why}; add\n      {each.line}")
    output.print_line("\nDifferences from Docker Compose:")
    for line in differences:
        output.print_line(f"  - {line}")
