"""`x-mesh`, or the `mesh.*` labels that say the same → `model.Mesh`; at the top → `front.Top`.

The model judges; here its errors are turned into problems with a line.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from meshd.spec.errors import Where, did_you_mean
from meshd.spec.model import Mesh
from meshd.spec.model.base import MOST_REPLICAS
from meshd.spec.model.proxy_settings import Top
from meshd.spec.source.cursor import Cursor
from meshd.spec.source.yaml_tree import SourceNode

Settings = TypeVar("Settings", bound=BaseModel)
IDENTITY: Final = frozenset({"managed", "project", "service", "revision", "replica", "clone-of"})
"""Labels `mesh.NAME` that say who a container is, not how it is reached."""
_LISTS: Final = {"route": "routes", "routes": "routes", "allow": "allow"}
_WHOLE: Final = {"health": "type", "balance": "algorithm"}
_PLAINER: Final = (
    (r"a valid integer.*", "a whole number"),
    (r"a valid number.*", "a number"),
    (r"a valid boolean.*", "true or false"),
    (r"a valid string.*", "text"),
    (r"a valid dictionary.*", "a mapping"),
    (r"a valid tuple.*", "a list"),
    (r"greater than or equal to", "at least"),
    (r"less than or equal to", "at most"),
)
_SHOULD: Final = re.compile(r"(?:Input|String|Tuple|List) should (?:be|have) (.*)")


def read(at: Cursor, replicas: int | None) -> Mesh | None:
    """The settings under `at`; None, with the problems noted. `replicas` is
    `deploy.replicas`, which stands for `scale.min` where that is not given."""
    plain = at.node.plain()
    if not isinstance(plain, dict):
        at.note(f"{at.shown()} is no mapping; expected keys like routes, scale and health")
        return None
    scale = plain.get("scale")
    if isinstance(scale, dict) and replicas is not None:
        scale.setdefault("min", replicas)
    settings = _validated(at, plain, Mesh)
    if settings is not None:
        _check_scale(at, settings, replicas)
    return settings


def read_front(at: Cursor) -> Top | None:
    """The settings under `x-mesh` at the top; None, with the problems noted."""
    for key, node in (at.node.mapping or {}).items():
        if key in Mesh.model_fields and key not in Top.model_fields:
            at.child(node, key).note("it belongs under x-mesh of a service, not at the top")
            return None
    plain = at.node.plain()
    if not isinstance(plain, dict):
        at.note(f"{at.shown()} is no mapping; expected trusted_proxies, access_log or quota")
        return None
    return _validated(at, plain, Top)


def _validated(at: Cursor, plain: object, of: type[Settings]) -> Settings | None:
    try:
        return of.model_validate(plain)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            _note(at, detail, of)
        return None


def from_labels(labels: Mapping[str, SourceNode], where: Where) -> SourceNode:
    """The tree of `x-mesh` that `mesh.a.b=value` labels say; identities are left out."""
    tree: dict[str, SourceNode] = {}
    for label, node in sorted(labels.items()):
        name = label.removeprefix("mesh.")
        if name in IDENTITY:
            continue
        if name in _LISTS:
            items = [
                replace(node, value=item.strip(), text=item.strip())
                for item in node.text.split(",")
                if item.strip()
            ]
            tree[_LISTS[name]] = SourceNode(items, node.where)
        else:
            _plant(tree, re.split(r"\.(?!\d)", name), node)
    return SourceNode(tree, where)


def _plant(tree: dict[str, SourceNode], path: list[str], node: SourceNode) -> None:
    """Put a leaf into the tree; `mesh.health=/x` beside `mesh.health.interval` is its path."""
    first, *rest = path
    if not rest:
        tree[first] = node
        return
    branch = tree.get(first)
    if branch is None:
        children: dict[str, SourceNode] = {}
    elif branch.mapping is not None:
        children = dict(branch.mapping)
    else:
        key = "path" if first == "health" and branch.text.startswith("/") else _WHOLE.get(first, "")
        children = {key: branch}
    _plant(children, rest, node)
    tree[first] = SourceNode(children, node.where)


def _check_scale(at: Cursor, settings: Mesh, replicas: int | None) -> None:
    scale = settings.scale
    node = (at.node.mapping or {}).get("scale")
    if scale is None or node is None:
        return
    here = at.child(node, "scale")
    if scale.aims and "max" not in (node.mapping or {}):
        here.note("an objective is given, but no bound for it; expected max")
    for name, number in (("max", scale.max), ("warm", scale.warm)):
        if isinstance(number, int) and number > MOST_REPLICAS:
            here.note(f"{name} is {number}; expected {MOST_REPLICAS} at most")
    if replicas is not None and not scale.min <= replicas <= scale.max:
        here.note(
            f"deploy.replicas is {replicas}, outside of {scale.min} to {scale.max}; expected it "
            "within, or left out"
        )


def _note(at: Cursor, detail: ErrorDetails, of: type[BaseModel]) -> None:
    """Note one of the model's errors at the node it is about."""
    here, missing = _walk(at, detail["loc"])
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = _fields(of, detail["loc"][:-1])
        near = did_you_mean(str(detail["loc"][-1]), known)
        here.note(f"unknown key{near or '; expected one of ' + ', '.join(sorted(known))}")
    elif kind == "missing":
        here.note(f"{'.'.join(missing)} is missing; expected a value")
    elif kind == "value_error":
        here.note(detail["msg"].removeprefix("Value error, "))
    else:
        here.note(f"{here.shown()} is wrong; expected {expected(detail['msg'])}")


def expected(message: str) -> str:
    """What the model wants, in the words used elsewhere."""
    should = _SHOULD.match(message)
    text = (should.group(1) if should else message).replace("'", "")
    for pattern, plain in _PLAINER:
        text = re.sub(pattern, plain, text)
    return text


def _walk(at: Cursor, loc: Iterable[int | str]) -> tuple[Cursor, list[str]]:
    """The cursor at `loc`, as far as it was written, and what of `loc` was not."""
    steps = list(loc)
    here = at
    for position, step in enumerate(steps):
        mapping, sequence = here.node.mapping, here.node.sequence
        if isinstance(step, int) and sequence is not None:
            here = here.child(sequence[step], f"[{step}]")
            continue
        if isinstance(step, int):
            # One value stands where a list of one is meant.
            continue
        key = step
        if mapping is not None and step == "objective" and step not in mapping:
            key = next((k for k in mapping if re.fullmatch(r"p[\d.]+", k)), step)
        if mapping is None or key not in mapping:
            return here, [str(each) for each in steps[position:]]
        here = here.child(mapping[key], key)
    return here, []


def _fields(model: type[BaseModel], loc: Iterable[int | str]) -> set[str]:
    """The fields of the model at `loc` in `model`."""
    for step in loc:
        if isinstance(step, str):
            found = _model_in(model.model_fields[step].annotation)
            if found is not None:
                model = found
    return set(model.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The model inside `X`, `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in get_args(annotation) if (m := _model_in(a)) is not None), None)
