"""The reference of `x-mesh`: its keys, types, defaults and meanings, from the models.

`docs.site.stage` calls `render`. The meaning of a key is its line in the docstring of its model;
`docs/compose.md` explains them with examples.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from docs.site.reference.markdown import code, sentence, table
from meshd.spec import units
from meshd.spec.model import Mesh
from meshd.spec.model.proxy_settings import TopLevelSettings

HEAD: Final = """# Keys of `x-mesh`

Every key with its type and default, generated from the code. [The Compose file](/compose.md#x-mesh)
explains them, with examples and the short forms. A duration is `200ms`, `1m30s` or a number of
seconds, a size `64k` or a number of bytes.
"""
PARSERS: Final[Mapping[Any, str]] = {
    units.parse_duration: "duration",
    units.parse_size: "size",
    units.parse_share: "percent or share",
    units.parse_count_or_percent: "number or percent",
}
PLAIN: Final[Mapping[Any, str]] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    type(None): "",
}


@dataclass(frozen=True)
class ModelAt:
    """A model and the dotted path of the key that holds it."""

    path: str
    model: type[BaseModel]


ROOTS: Final = {
    "Of a service": ModelAt("x-mesh", Mesh),
    "At the top level of the file": ModelAt("x-mesh", TopLevelSettings),
}
"""Heading of a part of the page → the model that it starts with."""
BULLET: Final = re.compile(r"^- ((?:`\w+`(?:, )?)+): (.*?)(?=^\S|^$|\Z)", re.MULTILINE | re.DOTALL)


def render() -> str:
    """Return the page."""
    places = first_places()
    parts = [HEAD]
    for title, root in ROOTS.items():
        parts += [f"## {title}", ""]
        for each in walk(root):
            if places[each.model] == each:
                parts += section(each, places)
    return "\n".join(parts)


def first_places() -> dict[type[BaseModel], ModelAt]:
    """Return where each model is described: at its shortest path."""
    found: dict[type[BaseModel], ModelAt] = {}
    for root in ROOTS.values():
        for each in walk(root):
            known = found.get(each.model)
            if known is None or depth(each) < depth(known):
                found[each.model] = each
    return found


def depth(at: ModelAt) -> int:
    """Return the number of keys on the path of a model."""
    return at.path.count(".")


def anchor(at: ModelAt) -> str:
    """Return the target of links to a model."""
    return f"keys-{at.model.__name__.lower()}"


def walk(start: ModelAt) -> Iterator[ModelAt]:
    """Yield a model and every model inside it, in the order of the keys."""
    yield start
    for name, field in start.model.model_fields.items():
        for model, suffix in models_in(field.annotation):
            yield from walk(ModelAt(f"{start.path}.{field.alias or name}{suffix}", model))


def models_in(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    """Yield the models of a field's type, with `[]` for a list and `.NAME` for a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
        return
    origin = get_origin(annotation)
    mark = "[]" if origin is tuple else ".NAME" if origin is dict else ""
    for inner in get_args(annotation):
        for model, suffix in models_in(inner):
            yield model, mark + suffix


def section(at: ModelAt, places: Mapping[type[BaseModel], ModelAt]) -> list[str]:
    """Return the heading, the description and the table of one model."""
    document = inspect.getdoc(at.model) or ""
    text = re.sub(r"; see `[\w.]+`", "", document.partition("\n- ")[0].strip())
    rows = [
        (
            code(field.alias or name),
            link_types(type_of(field), field, places),
            default_of(field),
            sentence(meanings(at.model)[field.alias or name]),
        )
        for name, field in at.model.model_fields.items()
    ]
    body = table(["key", "type", "default", "meaning"], rows)
    return [f"({anchor(at)})=", f"### `{at.path}`", "", text, "", body, ""]


def link_types(text: str, field: FieldInfo, places: Mapping[type[BaseModel], ModelAt]) -> str:
    """Return a type in words with a link to the keys of its mapping."""
    for model, _ in models_in(field.annotation):
        text = text.replace("mapping", f"[mapping](#{anchor(places[model])})", 1)
    return text


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return the meaning of each key, from the docstrings of the model and its bases."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if issubclass(each, BaseModel):
            for names, text in BULLET.findall(inspect.cleandoc(each.__doc__ or "")):
                found |= dict.fromkeys(re.findall(r"`(\w+)`", names), text)
    return found


def type_of(field: FieldInfo) -> str:
    """Return the type of a field in words, with its bounds."""
    words = name_type(field.annotation, field.metadata)
    bounds = [text for each in field.metadata for text in bound(each)]
    return ", ".join([words, *bounds])


def name_type(annotation: Any, metadata: Sequence[Any]) -> str:
    """Return a type in words."""
    for each in metadata:
        if isinstance(each, BeforeValidator) and each.func in PARSERS:
            return PARSERS[each.func]
    origin, inner = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        bounds = [text for each in annotation.__metadata__ for text in bound(each)]
        return ", ".join([name_type(inner[0], annotation.__metadata__), *bounds])
    if origin is Literal:
        return ", ".join(code(str(each).lower() if each is False else each) for each in inner)
    if origin in (Union, UnionType):
        return " or ".join(filter(None, (name_type(each, ()) for each in inner)))
    if origin is tuple:
        return f"list of {name_type(inner[0], ())}"
    if origin is dict:
        return f"mapping of names to {name_type(inner[1], ())}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return PLAIN[annotation]


def bound(value: Any) -> Iterator[str]:
    """Yield a bound in words."""
    for kind, name, word in (
        (Ge, "ge", "at least"),
        (Gt, "gt", "above"),
        (Le, "le", "at most"),
        (Lt, "lt", "below"),
    ):
        if isinstance(value, kind):
            yield f"{word} {getattr(value, name):g}"
    for inner in getattr(value, "metadata", ()):
        yield from bound(inner)


def default_of(field: FieldInfo) -> str:
    """Return the default of a field as it is written in a file."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None or value in ("", (), {}):
        return "–"
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, tuple):
        return code(f"[{', '.join(map(str, value))}]")
    return code(f"{value:g}" if isinstance(value, float) else str(value))
