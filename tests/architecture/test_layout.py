"""Names are unique, packages small, pure modules guarded, and the unit tests mirror the source."""

import ast
import re
from collections import Counter, defaultdict

from tests.architecture.source import ROOT, modules, name_of, project, tree_of

LARGEST_PACKAGE = 24
"""Modules in one package. A larger one is split."""
UNBOUNDED = {"meshd.cli.commands"}
"""Packages that grow by one module per command."""
TWINS = {"Balance", "Fault", "RateLimit", "Retries", "Service", "Timeouts"}
"""Names that a setting in `meshd.spec.model` shares with a record of `proxy.wire.snapshot`."""


def test_no_class_name_occurs_twice() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name_of(path))
    twice = {name for name, found in places.items() if len(found) > 1}
    assert twice == TWINS, {name: places[name] for name in twice ^ TWINS}
    for name in TWINS:
        roots = sorted(place.split(".")[:2] for place in places[name])
        assert roots == [["meshd", "spec"], ["proxy", "wire"]], places[name]


def test_no_package_is_too_large() -> None:
    sizes = Counter(name_of(path.parent) for path in modules() if path.name != "__init__.py")
    large = {name: size for name, size in sizes.items() if size > LARGEST_PACKAGE}
    assert not large.keys() - UNBOUNDED, large


def test_every_module_that_says_pure_is_guarded_by_the_import_contract() -> None:
    contracts = project()["tool"]["importlinter"]["contracts"]
    (pure,) = [each for each in contracts if each["name"].startswith("Pure ")]
    guarded = set(pure["source_modules"])

    def is_guarded(name: str) -> bool:
        parts = name.split(".")
        return any(".".join(parts[:count]) in guarded for count in range(1, len(parts) + 1))

    known = {name_of(path) for path in modules()}
    missing = sorted(
        name_of(path)
        for path in modules()
        if says_pure(ast.get_docstring(tree_of(path)) or "") and not is_guarded(name_of(path))
    )
    assert not missing, "add them to the contract of pure modules in pyproject.toml"
    assert guarded <= known, f"not modules: {sorted(guarded - known)}"


def says_pure(docstring: str) -> bool:
    """Whether a sentence of a docstring starts with the word Pure."""
    return bool(re.search(r"(?:^|[.:;]\s+)Pure\b", docstring))


def test_the_unit_tests_mirror_the_source_tree() -> None:
    unit = ROOT / "tests" / "unit"
    folders = {path.parent.relative_to(unit) for path in unit.rglob("test_*.py")}
    unknown = sorted(str(folder) for folder in folders if not (ROOT / folder).is_dir())
    assert not unknown, "a folder of tests/unit is named like the package that it tests"
