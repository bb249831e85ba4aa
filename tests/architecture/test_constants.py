"""Each numeric constant of a module says its unit, and where the number comes from."""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.source import ROOT, modules, tree_of


def is_number(node: ast.expr | None) -> bool:
    """Whether an expression is made of number literals alone, like `4 * 1024` or `-1.0`."""
    match node:
        case ast.Constant(value=bool()):
            return False
        case ast.Constant(value=int() | float()):
            return True
        case ast.UnaryOp(operand=operand):
            return is_number(operand)
        case ast.BinOp(left=left, right=right):
            return is_number(left) and is_number(right)
    return False


def constants(body: list[ast.stmt]) -> Iterator[tuple[int, str]]:
    """Yield the index in `body` and the name of each numeric constant."""
    for index, node in enumerate(body):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found = value
            case ast.AnnAssign(target=ast.Name(id=name), value=value):
                found = value
            case _:
                continue
        if is_number(found):
            yield index, name


def undocumented(path: Path) -> Iterator[str]:
    """Yield `file:line name` for each constant without a comment on its line, a comment above it
    or above the block of assignments that it stands in, or a docstring below."""
    text = path.read_text()
    comments = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    body = tree_of(path).body
    for index, name in constants(body):
        node = body[index]
        lines = set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        below = body[index + 1] if index + 1 < len(body) else None
        described = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        first = index
        while first and body[first].lineno == (body[first - 1].end_lineno or 0) + 1:
            first -= 1
            if not isinstance(body[first], ast.Assign | ast.AnnAssign):
                first += 1
                break
        if not (described or comments & {*lines, node.lineno - 1, body[first].lineno - 1}):
            yield f"{path.relative_to(ROOT)}:{node.lineno} {name}"


def test_numeric_constants_say_their_unit_or_reason() -> None:
    found = [line for path in modules() for line in undocumented(path)]
    assert not found, "say the unit and the reason in a comment or in a docstring below"
