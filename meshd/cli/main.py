"""`meshd`: the group of commands, each loaded only when it is called."""

import importlib

import click

_COMMANDS = ("proxy",)


class _Lazy(click.Group):
    """Finds command NAME in `meshd.cli.NAME`, where it is called `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"meshd.cli.{cmd_name}").command
        return found


@click.group(cls=_Lazy)
def main() -> None:
    """One tool between docker compose and Kubernetes."""


if __name__ == "__main__":
    main(prog_name="meshd")
