"""The reference of container labels: those that meshd reads and those that it writes.

`docs.site.stage` calls `render`. A setting of `x-mesh` is a label by its dotted name; the labels
that meshd writes have their meanings in `docs/compose.md`, which a test compares with the code.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel

from docs.site.reference.markdown import code, sentence, table
from docs.site.reference.x_mesh import default_of, meanings, type_of
from meshd.spec.labels import PREFIX
from meshd.spec.model import Mesh

COMPOSE_PAGE: Final = Path(__file__).resolve().parents[2] / "compose.md"
HEAD: Final = """# Labels

Containers that something else started join the mesh by labels, which `meshd up --adopt` reads;
[The Compose file](/compose.md#labels) explains how. On a service of a Compose file that meshd runs
itself they mean the same as `x-mesh`.
"""
LISTS: Final = {"routes": "mesh.route", "allow": "mesh.allow"}
"""Settings that are lists of texts, which a label separates by commas."""


def render() -> str:
    """Return the page."""
    own, written = tables_of_the_compose_page()
    rows = [(code(name), kind, default, meaning) for name, kind, default, meaning in settings()]
    return "\n".join(
        [
            HEAD,
            "## Identity and short forms",
            "",
            own,
            "",
            "## Settings",
            "",
            table(["label", "type", "default", "meaning"], rows),
            "",
            "## Labels that meshd writes",
            "",
            "On the containers that it starts:",
            "",
            written,
            "",
        ]
    )


def settings() -> Iterator[tuple[str, str, str, str]]:
    """Yield label, type, default and meaning of each setting."""
    yield from settings_of(Mesh, PREFIX)


def settings_of(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield the settings of a model. Lists of mappings have no labels."""
    texts = meanings(model)
    for name, field in model.model_fields.items():
        inner = model_in(field.annotation)
        if name in LISTS and model is Mesh:
            yield LISTS[name], "texts with commas", "–", sentence(texts[name])
        elif inner is not None:
            yield from settings_of(inner, f"{prefix}{name}.")
        elif not is_list(field.annotation):
            yield f"{prefix}{name}", type_of(field), default_of(field), sentence(texts[name])


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model in `X` or `X | None`; None if there is none or it is in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if is_list(annotation):
        return None
    return next((found for each in get_args(annotation) if (found := model_in(each))), None)


def is_list(annotation: Any) -> bool:
    """Whether a type is a list or a mapping, or can be one."""
    if get_origin(annotation) in (tuple, dict):
        return True
    return any(is_list(each) for each in get_args(annotation) if each is not annotation)


def tables_of_the_compose_page() -> tuple[str, str]:
    """Return the tables of labels in `docs/compose.md`: those to write, and those of meshd."""
    text = COMPOSE_PAGE.read_text(encoding="utf-8").partition("\n## Labels\n")[2]
    first, second = re.findall(r"^\| label .*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)[:2]
    return first, second
