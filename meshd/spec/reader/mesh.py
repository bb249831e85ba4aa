"""Read `x-mesh`, or the equivalent `mesh.*` labels, into the models.

Called by `meshd.spec.reader.service` for a service, by `meshd.spec.compose` for the top level, and
by `meshd.spec.labels` for adopted containers. The models validate; this module turns their errors
into errors with a location.
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
"""Labels `mesh.NAME` that identify a container. All others are settings of `x-mesh`."""
_LIST_LABELS: Final = {"route": "routes", "routes": "routes", "allow": "allow"}
_SHORT_FORM_KEYS: Final = {"health": "type", "balance": "algorithm", "drain": "requests"}
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
    """Read `x-mesh` of a service; return None, with the errors recorded, if it is invalid.

    `replicas` is `deploy.replicas`, the default of `scale.min`.
    """
    plain = at.node.to_plain()
    if not isinstance(plain, dict):
        at.add_problem(
            f"{at.describe()} is not a mapping; expected keys such as routes, scale and health"
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
    """Read `x-mesh` at the top level; return None, with the errors recorded, if it is invalid."""
    for key, node in (at.node.mapping or {}).items():
        if key in Mesh.model_fields and key not in TopLevelSettings.model_fields:
            at.child(node, key).add_problem(
                "this key belongs under x-mesh of a service, not at the top level"
            )
            return None
    plain = at.node.to_plain()
    if not isinstance(plain, dict):
        at.add_problem(
            f"{at.describe()} is not a mapping; expected keys such as trusted_proxies, access_log "
            "and quota"
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
    """Return the tree of `x-mesh` that `mesh.a.b=value` labels describe, without those that
    identify the container."""
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
    """Insert a leaf into the tree. If `mesh.health.interval` also exists, `mesh.health=/x` becomes
    `mesh.health.path`."""
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
        here.add_problem("an objective requires an upper bound; expected max")
    for name, number in (("max", scale.max), ("warm", scale.warm)):
        if isinstance(number, int) and number > MAX_REPLICAS:
            here.add_problem(f"{name} is {number}; expected at most {MAX_REPLICAS}")
    if replicas is not None and not scale.min <= replicas <= scale.max:
        here.add_problem(
            f"deploy.replicas is {replicas}; expected {scale.min} to {scale.max} as in scale, "
            "or no deploy.replicas"
        )


def _add_problem(at: Cursor, detail: ErrorDetails, of: type[BaseModel]) -> None:
    """Record a validation error at the node it refers to."""
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
        here.add_problem(
            f"{here.describe()} is not valid; expected {describe_expected(detail['msg'])}"
        )


def describe_expected(message: str) -> str:
    """Return what a pydantic message expects, in the wording of the other errors."""
    should = _SHOULD.match(message)
    text = (should.group(1) if should else message).replace("'", "")
    for pattern, plain in _PLAIN_WORDS:
        text = re.sub(pattern, plain, text)
    return text


def find_cursor(at: Cursor, loc: Iterable[int | str]) -> Cursor:
    """Return the cursor at `loc` below `at`, or the deepest one that exists."""
    return _find_node(at, loc)[0]


def _find_node(at: Cursor, loc: Iterable[int | str]) -> tuple[Cursor, list[str]]:
    """Return the cursor at `loc`, or the deepest one that exists, and the rest of `loc`."""
    steps = list(loc)
    here = at
    for position, step in enumerate(steps):
        mapping, sequence = here.node.mapping, here.node.sequence
        if isinstance(step, int) and sequence is not None:
            here = here.child(sequence[step], f"[{step}]")
            continue
        if isinstance(step, int):
            # A single value was given in place of a list.
            continue
        key = step
        if mapping is not None and step == "objective" and step not in mapping:
            key = next((k for k in mapping if re.fullmatch(r"p[\d.]+", k)), step)
        if mapping is None or key not in mapping:
            return here, [str(each) for each in steps[position:]]
        here = here.child(mapping[key], key)
    return here, []


def _known_fields(model: type[BaseModel], loc: Iterable[int | str]) -> set[str]:
    """Return the fields of the model at `loc` in `model`."""
    for step in loc:
        # A step that is not a field is a key of a mapping of models.
        if isinstance(step, str) and step in model.model_fields:
            found = _find_model(model.model_fields[step].annotation)
            if found is not None:
                model = found
    return set(model.model_fields)


def _find_model(annotation: object) -> type[BaseModel] | None:
    """Return the model in `X`, `X | None` or `tuple[X, ...]`; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in get_args(annotation) if (m := _find_model(a)) is not None), None)
