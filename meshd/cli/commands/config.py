"""`meshd config`: print a Compose file as meshd reads it. It needs no daemon.

`meshd.spec.canonical` builds the form.
"""

import re
import sys
from io import StringIO
from pathlib import Path
from typing import Any, Final, Literal

import click

from meshd.cli import output, spec_options

_PLAIN: Final = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@+-]*( [A-Za-z0-9_./@+-]+)*")
"""Text that no version of YAML reads as anything else, but for `_RESERVED`."""
_RESERVED: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_UNFOLDED: Final = 1_000_000
"""Columns of a line, so that no text is folded."""


@click.command("config", short_help="Print the Compose file as meshd reads it.")
@spec_options.spec_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="Output format.",
)
@click.option("--services", "listed", flag_value="services", help="Print the services' names only.")
@click.option("--images", "listed", flag_value="images", help="Print the images only.")
@click.option("--volumes", "listed", flag_value="volumes", help="Print the volumes' names only.")
@click.option("--profiles", "listed", flag_value="profiles", help="Print the profiles only.")
def command(
    files: tuple[Path, ...],
    project: str | None,
    profiles: tuple[str, ...],
    form: Literal["yaml", "json"],
    listed: str | None,
) -> None:
    """Print the merged Compose file in the canonical form of `docker compose config`: variables
    replaced, short forms expanded, paths absolute.

    Warnings and errors go to standard error. Exit codes: 0 valid, 2 refused.
    """
    from meshd.spec import canonical

    loaded = spec_options.load(files, project, profiles)
    if listed is None:
        tree = canonical.build_canonical(loaded)
        if form == "json":
            output.print_json(tree)
        else:
            sys.stdout.write(to_yaml(tree))
        return
    spec = loaded.project
    names = {
        "services": sorted(service.name for service in spec.services),
        "images": [each.image or f"{spec.name}_{each.name}" for each in spec.services],
        "volumes": sorted(spec.volumes),
        "profiles": canonical.list_profiles(loaded),
    }[listed]
    for name in names:
        output.print_line(name)


def to_yaml(tree: Any) -> str:
    """Return YAML that YAML 1.1 and 1.2 read alike: other text than plain words is quoted."""
    from ruamel.yaml import YAML
    from ruamel.yaml.nodes import ScalarNode
    from ruamel.yaml.representer import SafeRepresenter

    class Representer(SafeRepresenter):
        def represent_text(self, text: str) -> ScalarNode:
            plain = _PLAIN.fullmatch(text) and text.lower() not in _RESERVED
            return self.represent_scalar("tag:yaml.org,2002:str", text, None if plain else '"')

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - its interface
            return True

    Representer.add_representer(str, Representer.represent_text)
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = Representer
    yaml.default_flow_style = False
    yaml.width = _UNFOLDED
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    out = StringIO()
    yaml.dump(tree, out)
    return out.getvalue()
