"""Entry point of `meshd`: the group of commands, each imported only when it is used.

Shell completion: `eval "$(_MESHD_COMPLETE=bash_source meshd)"` (or zsh_source, fish_source).
The commands are in `meshd.cli.commands`; `meshd.__main__` and the console script call `main`.
"""

import difflib
import importlib
import signal

import click

import proxy
from meshd.cli import output

_COMMANDS = (
    "up",
    "down",
    "deploy",
    "diff",
    "config",
    "check",
    "ps",
    "top",
    "ui",
    "graph",
    "inspect",
    "open",
    "scale",
    "rollout",
    "restart",
    "drain",
    "bootstrap",
    "migrate",
    "nodes",
    "node",
    "rebalance",
    "logs",
    "exec",
    "run",
    "jobs",
    "events",
    "tap",
    "record",
    "explain",
    "right-size",
    "policy",
    "token",
    "silence",
    "audit",
    "context",
    "certificates",
    "doctor",
    "simulate",
    "volume",
    "password",
    "backup",
    "restore",
    "proxy",
)


class _LazyGroup(click.Group):
    """Loads the command NAME from `meshd.cli.commands.NAME`, where it is called `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            if similar := difflib.get_close_matches(cmd_name, _COMMANDS, 1):
                ctx.fail(f"No such command {cmd_name!r}. Did you mean {similar[0]!r}?")
            return None
        # Before the import: commands import parts of `proxy` that another package does not have.
        if not getattr(proxy, "MESHD", False):
            ctx.fail(f"{proxy.__file__} belongs to another package named 'proxy'; uninstall it")
        command: click.Command = importlib.import_module(
            f"meshd.cli.commands.{cmd_name.replace('-', '_')}"
        ).command
        return command


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 success, 1 failure, 2 invalid usage or spec, or the daemon cannot start, "
    '3 no daemon answers. Shell completion: eval "$(_MESHD_COMPLETE=bash_source meshd)".',
)
@click.version_option(package_name="meshd", prog_name="meshd")
@click.option(
    "--context",
    "context_name",
    metavar="NAME",
    envvar="MESHD_CONTEXT",
    help="Daemon to talk to; `meshd context` manages them. Default: $MESHD_CONTEXT, then the one "
    "that `meshd context use` chose.",
)
@click.pass_context
def main(context: click.Context, context_name: str | None) -> None:
    """Run a Compose application with load balancing, healing, autoscaling and safe rollouts."""
    context.meta["meshd.context"] = context_name  # read by `meshd.cli.contexts`
    output.disable_colours()
    # The command's modules are loaded now: see `meshd.__main__`.
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    main(prog_name="meshd")
