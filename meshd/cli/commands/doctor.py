"""`meshd doctor`: check whether this machine and the daemon are in order, and say what to do."""

from pathlib import Path

import click

from meshd.cli import output
from meshd.cli.doctor import checks, probes
from meshd.cli.doctor.checks import Level
from meshd.cli.options import output_option, state_option
from meshd.cli.session import run_async

_MARKS = {Level.GOOD: ("ok", "green"), Level.WARN: ("warn", "yellow"), Level.BAD: ("fail", "red")}


@click.command("doctor", short_help="Check this machine and the daemon.")
@click.option("--runtime", default="", help="Check for this runtime: docker or process.")
@output_option
@state_option
@run_async
async def command(runtime: str, as_json: bool, state: Path) -> int:
    """Check the engine, ports, file limits, clock, disk space, kernel settings and the daemon, and
    say what to do about each problem. Exit code 1 if something does not work."""
    facts = await probes.collect(state, runtime)
    found = checks.diagnose(facts)
    if as_json:
        output.print_json(
            [
                {"check": f.name, "level": f.level.value, "found": f.text, "advice": f.advice}
                for f in found
            ]
        )
    else:
        width = max(len(each.name) for each in found)
        for each in found:
            word, colour = _MARKS[each.level]
            output.print_line(
                f"{click.style(f'{word:<4}', fg=colour)}  {each.name:<{width}}  {each.text}"
            )
            if each.advice:
                output.print_line(f"{'':<{width + 8}}→ {each.advice}")
    return output.FAILED if any(each.level is Level.BAD for each in found) else output.OK
