"""Durations, sizes, variables and env files."""

import pytest

from meshd.spec.errors import Diagnostics
from meshd.spec.source import env_file
from meshd.spec.source.interpolate import InterpolationError, interpolate
from meshd.spec.units import parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("200ms", 0.2),
        ("1s", 1.0),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        ("1h2m3s4ms", 3723.004),
        ("15us", 0.000015),
        ("2d", 172800.0),
        (" 5 ", 5.0),
        (0, 0.0),
        (2.5, 2.5),
    ],
)
def test_duration(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    ["", "s", "1x", "1 s", "-1s", -1, True, None, float("nan"), float("inf"), "1s,2s", "1e3"],
)
def test_invalid_durations(text: object) -> None:
    with pytest.raises(ValueError, match=r"is not a valid duration; expected e\.g\. 200ms"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("512m", 512 * 1024**2),
        ("1.5g", 1536 * 1024**2),
        ("64KiB", 65536),
        ("64kb", 65536),
        ("1t", 1024**4),
        ("7b", 7),
        ("100", 100),
        (100, 100),
        (0, 0),
    ],
)
def test_size(text: object, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "m", "1x", "-1m", -1, True, None, 1.5, "1m1k"])
def test_invalid_sizes(text: object) -> None:
    with pytest.raises(ValueError, match=r"is not a valid size; expected e\.g\. 512m"):
        parse_size(text)


VARIABLES = {"A": "a", "EMPTY": "", "N_1": "n"}


@pytest.mark.parametrize(
    ("text", "expected", "unset"),
    [
        ("plain", "plain", []),
        ("$A-${A}", "a-a", []),
        ("$$A $${A} $$", "$A ${A} $", []),
        ("$N_1.x", "n.x", []),
        ("$NOPE|${NOPE}", "|", ["NOPE", "NOPE"]),
        ("${EMPTY}", "", []),
        ("${NOPE:-d}|${EMPTY:-d}|${A:-d}", "d|d|a", []),
        ("${NOPE-d}|${EMPTY-d}|${A-d}", "d||a", []),
        ("${NOPE:+s}|${EMPTY:+s}|${A:+s}", "||s", []),
        ("${NOPE+s}|${EMPTY+s}|${A+s}", "|s|s", []),
        ("${A:?x}|${EMPTY?x}", "a|", []),
        ("${NOPE:-${A}}", "a", []),
        ("${NOPE:-${NADA:-x}y}z", "xyz", []),
        ("${NOPE:-a:b/c}", "a:b/c", []),
        ("${NOPE:-{}}", "{}", []),
        ("${NOPE:-$$}", "$", []),
        ("a$", None, []),
        ("$1", None, []),
        ("${A", None, []),
        ("${}", None, []),
        ("${1A}", None, []),
        ("${A!}", None, []),
        ("${A:=x}", None, []),
        ("${NOPE:?gone}", None, []),
        ("${EMPTY:?gone}", None, []),
        ("${NOPE?gone}", None, []),
    ],
)
def test_interpolation(text: str, expected: str | None, unset: list[str]) -> None:
    missing: list[str] = []
    if expected is None:
        with pytest.raises(InterpolationError):
            interpolate(text, VARIABLES, missing.append)
    else:
        assert interpolate(text, VARIABLES, missing.append) == expected
    assert missing == unset


def test_env_file() -> None:
    diagnostics = Diagnostics()
    text = "\n".join(
        [
            "# note",
            "",
            "A=1",
            "export B = two # note",
            "C='$A # kept'",
            'D="x\\ty $A"  # note',
            "E=a#b",
            "F=#",
            "G",
            "H",
            "I=$A$G",
            "A.B-c=d",
            'J="price \\$5"',
        ]
    )
    assert env_file.parse_env_file(text, "x.env", {"G": "g"}, diagnostics) == {
        "A": "1",
        "B": "two",
        "C": "$A # kept",
        "D": "x\ty 1",
        "E": "a#b",
        "F": "",
        "G": "g",
        "I": "1g",
        "A.B-c": "d",
        "J": "price $5",
    }
    assert not diagnostics.problems


def test_errors_in_an_env_file() -> None:
    diagnostics = Diagnostics()
    text = "A=1\n1A=x\nB='open\nC='x' y\nD=${E:?E is needed}\n"
    assert env_file.parse_env_file(text, "x.env", {}, diagnostics) == {"A": "1"}
    assert [str(problem) for problem in diagnostics.problems] == [
        "x.env:2: '1A=x' is not a valid variable; expected NAME=value",
        "x.env:3: B: the quote is not closed on this line; expected a closing quote",
        "x.env:4: C: 'y' follows the closing quote; expected nothing or a comment",
        "x.env:5: D: the variable E must be set: E is needed",
    ]
