"""The generated pages name every command, key, label and operation of the code."""

import re

import click
import pytest

from docs.site.reference import api, cli, labels, x_mesh
from docs.site.stage import ROOT
from meshd.api.route_table import ROUTES
from meshd.cli.main import main
from meshd.spec.labels import adopt, make_labels
from meshd.spec.model import Mesh
from meshd.spec.model.proxy_settings import TopLevelSettings


@pytest.fixture(scope="module")
def commands() -> str:
    return cli.render({"README": ROOT / "README.md"})


def test_every_command_with_its_options(commands: str) -> None:
    root = click.Context(main, info_name="meshd")
    for name in main.list_commands(root):
        command = main.get_command(root, name)
        assert command is not None
        section = commands.split(f"\n## `meshd {name}`\n")[1].split("\n## ", maxsplit=1)[0]
        inner = [command, *getattr(command, "commands", {}).values()]
        for each in inner:
            for option in each.params:
                if isinstance(option, click.Option) and not option.hidden:
                    assert re.search(rf"`[^`]*{option.opts[-1]}\b", section), (name, option.opts)
        for subcommand in getattr(command, "commands", {}):
            assert f"### `meshd {name} {subcommand}`" in section


def test_examples_come_from_the_pages(commands: str) -> None:
    section = commands.split("\n## `meshd scale`\n")[1].split("\n## ", maxsplit=1)[0]
    assert "meshd scale api 4 --for 10m   # set the number by hand for a while" in section


def test_exit_codes(commands: str) -> None:
    section = commands.split("\n## Exit codes\n")[1].split("\n## ", maxsplit=1)[0]
    assert re.findall(r"^\| `(\d)` \| (.*) \|$", section, re.MULTILINE) == [
        ("0", "Success."),
        ("1", "Failure."),
        ("2", "Invalid usage or spec, or the daemon cannot start."),
        ("3", "No daemon answers."),
    ]


def test_every_key_of_x_mesh_has_a_meaning() -> None:
    """Each key comes once, with the text of its model's docstring."""
    page = x_mesh.render()
    models = {each.model for root in (Mesh, TopLevelSettings) for each in walk(root)}
    rows = re.findall(r"^\| `\w+` \| .* \| .* \| (.*) \|$", page, re.MULTILINE)
    assert len(rows) == sum(len(model.model_fields) for model in models)
    assert all(rows)
    assert "| `p95` |" not in page
    assert re.search(r"\| `max` \| whole number, at least 0 \| `1` \| The highest number", page)
    assert "| `idle` | duration, above 0 | `300` |" in page
    for link in re.findall(r"\(#([\w-]+)\)", page):
        assert f"\n({link})=\n" in page


def walk(root: type[Mesh] | type[TopLevelSettings]) -> list[x_mesh.ModelAt]:
    return list(x_mesh.walk(x_mesh.ModelAt("x-mesh", root)))


def test_every_label_can_be_read() -> None:
    names = [name for name, *_ in labels.settings()]
    assert {"mesh.port", "mesh.route", "mesh.scale.max", "mesh.timeouts.request"} <= set(names)
    assert len(set(names)) == len(names)
    base = {"mesh.service": "web"}
    values = {"mesh.port": "81", "mesh.route": "/a, /b", "mesh.scale.max": "3"}
    _, service = adopt("c", {**base, **values})
    assert service.mesh is not None
    assert (service.mesh.port, len(service.mesh.routes)) == (81, 2)
    page = labels.render()
    for name in (*names, *make_labels("p", "s", "r", "n", 1, "i")):
        assert f"| `{name}` |" in page


def test_every_operation_of_the_api() -> None:
    page = api.render()
    for route in ROUTES:
        assert f"### `{route.method} {route.path}`" in page
    for link in re.findall(r"\(#([\w{}./-]+)\)", page):
        assert f"({link})=" in page
