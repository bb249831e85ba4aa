"""Durations, sizes, variables and env files."""

import pytest

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
        ("a$", "a$", []),
        ("$1", "$1", []),
        ("^[a-z]+$", "^[a-z]+$", []),
        ("$2y$10$$x", "$2y$10$x", []),
        ("${A:-{}}", "a", []),
        ('${A:-{"a":1}}', "a", []),
        ('${NOPE:-{"a":{"b":1}}}', '{"a":{"b":1}}', []),
        ("${A:-{{x}}}|${NOPE:-{{x}}}", "a|{{x}}", []),
        ("${NOPE:-{}", "{", []),
        ("${NOPE:-x}}", "x}", []),
        ("${NOPE:-${NADA:-{}}}", "{}", []),
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
