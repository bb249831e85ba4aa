"""Env files: the values that Docker Compose gives, and errors with their line."""

import pytest

from meshd.spec.errors import Diagnostics
from meshd.spec.source.env_file import decode_env_file, parse_env_file, parse_raw_env_file

ENVIRONMENT = {"SET": "s", "A": "outer"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# note\n\n  \nV=1", {"V": "1"}),
        ("  V  =  a b  ", {"V": "a b"}),
        ("export V=1\nexport\tW = 2\nexports=3", {"V": "1", "W": "2", "exports": "3"}),
        ("V: x=y", {"V": "x=y"}),
        ("V:'x y' # why", {"V": "x y"}),
        ("456=ABC", {"456": "ABC"}),
        ("a[1]=c\na.b-c=d", {"a[1]": "c", "a.b-c": "d"}),
        ("űrő=ű", {"űrő": "ű"}),
        # Comments: a space and a sign, except in quotes.
        ("V=a # b", {"V": "a"}),
        ("V=a#b", {"V": "a#b"}),
        ("V=a\t# b", {"V": "a\t# b"}),
        ("V=   # note", {"V": "# note"}),
        ("V=#", {"V": "#"}),
        ("V=a #\nW=1", {"V": "a", "W": "1"}),
        ("V='a # b' # c\nW=\"# d\"#e", {"V": "a # b", "W": "# d"}),
        # Only a line feed ends a line.
        ("V=a\vb\nW=c\x85d\nX=e\u2028f\nY=g\x1ch",
         {"V": "a\vb", "W": "c\x85d", "X": "e\u2028f", "Y": "g\x1ch"}),
        ("V=a\r\nW='b'\r\n", {"V": "a", "W": "b"}),
        # Quotes.
        ("V=\"one\ntwo\"\nW=1", {"V": "one\ntwo", "W": "1"}),
        ("V='one\n# two'\nW=1", {"V": "one\n# two", "W": "1"}),
        (r"V='it\'s'", {"V": "it's"}),
        (r"V='a\nb\\'", {"V": r"a\nb\\"}),
        (r'V="say \"x\""', {"V": 'say "x"'}),
        ("V=\"it's\"", {"V": "it's"}),
        ("V=a'b'", {"V": "a'b'"}),
        ("V=\"a\" W='b'", {"V": "a", "W": "b"}),
        ("V=''", {"V": ""}),
        ("V=\nW=1", {"V": "", "W": "1"}),
        # Escapes count in double quotes only.
        (r'V="a\vb\0101\0351"', {"V": "a\vbA\xe9"}),
        (r'V="\a\b\f\n\r\t\v\\"', {"V": "\a\b\f\n\r\t\v\\"}),
        (r'V="\c\d\x41"', {"V": r"\c\d\x41"}),
        (r'V="\0|\08|\0777"', {"V": r"\|\8|\777"}),
        (r"V=a\nb", {"V": r"a\nb"}),
        # Variables.
        ("V=pa$1s$", {"V": "pa$1s$"}),
        ("V=1\nW=$V-${V}", {"V": "1", "W": "1-1"}),
        ("A=inner\nW=$A", {"A": "inner", "W": "outer"}),
        ("V=${NOPE:-{}}", {"V": "{}"}),
        ("V='$SET'\nW=\"$SET\"\nX=\"\\$SET\"\nY=$$SET",
         {"V": "$SET", "W": "s", "X": "$SET", "Y": "$SET"}),
        ("V=$NOPE|$EARLIER", {"V": "|e"}),
        # A name without a value.
        ("SET\nNOPE\nV=1", {"SET": "s", "V": "1"}),
        ("V=1\nSET", {"V": "1", "SET": "s"}),
    ],
)  # fmt: skip
def test_values(text: str, expected: dict[str, str]) -> None:
    diagnostics = Diagnostics()
    found = parse_env_file(text, "x.env", ENVIRONMENT, diagnostics, {"EARLIER": "e"})
    assert (found, diagnostics.problems) == (expected, [])


def test_raw_values_are_kept_as_they_are() -> None:
    diagnostics = Diagnostics()
    text = "# note\n  V=a # b '\r\nW=\" $SET \nX=\n SET\nNOPE\n\nA B=1\n=1"
    found = parse_raw_env_file(text, "x.env", ENVIRONMENT, diagnostics)
    assert found == {"V": "a # b '", "W": '" $SET ', "X": "", "SET": "s"}
    assert [str(problem) for problem in diagnostics.problems] == [
        "x.env:8: 'A B=1' is not a valid variable; expected NAME=value",
        "x.env:9: '=1' is not a valid variable; expected NAME=value",
    ]


def test_a_byte_order_mark_is_skipped() -> None:
    assert decode_env_file(b"\xef\xbb\xbfV=1\r\n") == "V=1\r\n"


def test_errors_have_their_line_and_hide_no_other_error() -> None:
    diagnostics = Diagnostics()
    text = "A=1\nA B=x\nC='x'y\n%=1\nD=${E:?E is needed}\nF=\"\n\n\"\nG H\nB='open\nI=1\n"
    found = parse_env_file(text, "x.env", {}, diagnostics)
    assert found == {"A": "1", "F": "\n\n", "I": "1"}
    assert [str(problem) for problem in diagnostics.problems] == [
        "x.env:2: 'A B=x' is not a valid variable; expected NAME=value",
        "x.env:3: C: 'y' touches the closing quote; expected white space or nothing",
        "x.env:4: '%=1' is not a valid variable; expected NAME=value",
        "x.env:5: D: the variable E must be set: E is needed",
        "x.env:9: 'G H' is not a valid variable; expected NAME=value",
        "x.env:10: B: the quote is not closed; expected a closing quote",
    ]
