"""`meshd`: the group of commands, each loaded only when it is called.

Shell completion: `eval "$(_MESHD_COMPLETE=bash_source meshd)"` (or zsh_source, fish_source).
"""

import difflib
import importlib

import click

import proxy

_COMMANDS = (
    "up",
    "down",
    "deploy",
    "diff",
    "ps",
    "top",
    "scale",
    "rollout",
    "drain",
    "logs",
    "run",
    "jobs",
    "events",
    "explain",
    "right-size",
    "policy",
    "simulate",
    "backup",
    "restore",
    "proxy",
)


class _Lazy(click.Group):
    """Finds command NAME in `meshd.cli.commands.NAME`, where it is called `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            if near := difflib.get_close_matches(cmd_name, _COMMANDS, 1):
                ctx.fail(f"No such command {cmd_name!r}. Did you mean {near[0]!r}?")
            return None
        found: click.Command = importlib.import_module(
            f"meshd.cli.commands.{cmd_name.replace('-', '_')}"
        ).command
        return found


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 fine, 1 a failed result, 2 wrong usage or spec, or cannot start, "
    '3 no daemon. Completion: eval "$(_MESHD_COMPLETE=bash_source meshd)".',
)
@click.version_option(package_name="meshd", prog_name="meshd")
def main() -> None:
    """One tool between docker compose and Kubernetes: balances, heals and scales services."""
    if not getattr(proxy, "MESHD", False):
        raise click.UsageError(f"{proxy.__file__} is another package named 'proxy'; uninstall it")


if __name__ == "__main__":
    main(prog_name="meshd")
