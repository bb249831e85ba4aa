"""`x-mesh`, or the `mesh.*` labels that say the same → `model.Mesh`; at the top → `front.Top`.

The model judges; here its errors are turned into problems with a line.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from meshd.spec.errors import Location, suggest
from meshd.spec.model import Mesh
from meshd.spec.model.base import MAX_REPLICAS
from meshd.spec.model.proxy_settings import TopLevelSettings
from meshd.spec.source.cursor import Cursor
from meshd.spec.source.yaml_tree import SourceNode

Settings = TypeVar("Settings", bound=BaseModel)
IDENTITY_LABELS: Final = frozenset(
    {"managed", "project", "service", "revision", "replica", "clone-of"}
)
"""Labels `mesh.NAME` that say who a container is, not how it is reached."""
_LIST_LABELS: Final = {"route": "routes", "routes": "routes", "allow": "allow"}
_SHORT_FORM_KEYS: Final = {"health": "type", "balance": "algorithm"}
_PLAIN_WORDS: Final = (
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


def read_mesh(at: Cursor, replicas: int | None) -> Mesh | None:
    """The settings under `at`; None, with the problems noted. `replicas` is
    `deploy.replicas`, which stands for `scale.min` where that is not given."""
    plain = at.node.to_plain()
    if not isinstance(plain, dict):
        at.add_problem(
            f"{at.describe()} is no mapping; expected keys like routes, scale and health"
        )
        return None
    scale = plain.get("scale")
    if isinstance(scale, dict) and replicas is not None:
        scale.setdefault("min", replicas)
    settings = _validate(at, plain, Mesh)
    if settings is not None:
        _check_scale(at, settings, replicas)
    return settings


def read_top_level(at: Cursor) -> TopLevelSettings | None:
    """The settings under `x-mesh` at the top; None, with the problems noted."""
    for key, node in (at.node.mapping or {}).items():
        if key in Mesh.model_fields and key not in TopLevelSettings.model_fields:
            at.child(node, key).add_problem("it belongs under x-mesh of a service, not at the top")
            return None
    plain = at.node.to_plain()
    if not isinstance(plain, dict):
        at.add_problem(
            f"{at.describe()} is no mapping; expected trusted_proxies, access_log or quota"
        )
        return None
    return _validate(at, plain, TopLevelSettings)


def _validate(at: Cursor, plain: object, of: type[Settings]) -> Settings | None:
    try:
        return of.model_validate(plain)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            _add_problem(at, detail, of)
        return None


def build_tree_from_labels(labels: Mapping[str, SourceNode], location: Location) -> SourceNode:
    """The tree of `x-mesh` that `mesh.a.b=value` labels say; identities are left out."""
    tree: dict[str, SourceNode] = {}
    for label, node in sorted(labels.items()):
        name = label.removeprefix("mesh.")
        if name in IDENTITY_LABELS:
            continue
        if name in _LIST_LABELS:
            items = [
                replace(node, value=item.strip(), text=item.strip())
                for item in node.text.split(",")
                if item.strip()
            ]
            tree[_LIST_LABELS[name]] = SourceNode(items, node.location)
        else:
            _insert(tree, re.split(r"\.(?!\d)", name), node)
    return SourceNode(tree, location)


def _insert(tree: dict[str, SourceNode], path: list[str], node: SourceNode) -> None:
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
        key = (
            "path"
            if first == "health" and branch.text.startswith("/")
            else _SHORT_FORM_KEYS.get(first, "")
        )
        children = {key: branch}
    _insert(children, rest, node)
    tree[first] = SourceNode(children, node.location)


def _check_scale(at: Cursor, settings: Mesh, replicas: int | None) -> None:
    scale = settings.scale
    node = (at.node.mapping or {}).get("scale")
    if scale is None or node is None:
        return
    here = at.child(node, "scale")
    if scale.has_objectives and "max" not in (node.mapping or {}):
        here.add_problem("an objective is given, but no bound for it; expected max")
    for name, number in (("max", scale.max), ("warm", scale.warm)):
        if isinstance(number, int) and number > MAX_REPLICAS:
            here.add_problem(f"{name} is {number}; expected {MAX_REPLICAS} at most")
    if replicas is not None and not scale.min <= replicas <= scale.max:
        here.add_problem(
            f"deploy.replicas is {replicas}, outside of {scale.min} to {scale.max}; expected it "
            "within, or left out"
        )


def _add_problem(at: Cursor, detail: ErrorDetails, of: type[BaseModel]) -> None:
    """Note one of the model's errors at the node it is about."""
    here, missing = _find_node(at, detail["loc"])
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = _known_fields(of, detail["loc"][:-1])
        near = suggest(str(detail["loc"][-1]), known)
        here.add_problem(f"unknown key{near or '; expected one of ' + ', '.join(sorted(known))}")
    elif kind == "missing":
        here.add_problem(f"{'.'.join(missing)} is missing; expected a value")
    elif kind == "value_error":
        here.add_problem(detail["msg"].removeprefix("Value error, "))
    else:
        here.add_problem(f"{here.describe()} is wrong; expected {describe_expected(detail['msg'])}")


def describe_expected(message: str) -> str:
    """What the model wants, in the words used elsewhere."""
    should = _SHOULD.match(message)
    text = (should.group(1) if should else message).replace("'", "")
    for pattern, plain in _PLAIN_WORDS:
        text = re.sub(pattern, plain, text)
    return text


def _find_node(at: Cursor, loc: Iterable[int | str]) -> tuple[Cursor, list[str]]:
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


def _known_fields(model: type[BaseModel], loc: Iterable[int | str]) -> set[str]:
    """The fields of the model at `loc` in `model`."""
    for step in loc:
        if isinstance(step, str):
            found = _find_model(model.model_fields[step].annotation)
            if found is not None:
                model = found
    return set(model.model_fields)


def _find_model(annotation: object) -> type[BaseModel] | None:
    """The model inside `X`, `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in get_args(annotation) if (m := _find_model(a)) is not None), None)
