"""Text is plain English: no phrase that was replaced comes back.

Each phrase has what to write instead. An exception is a whole file in `EXCEPTIONS`, with the phrase
and the reason.
"""

import re
from pathlib import Path

import pytest

from tests.architecture.source import ROOT, tracked

SUFFIXES = {".py", ".md", ".yml", ".yaml", ".sh", ".toml", ".json", ".sql", ".txt", ""}
LEFT_OUT = (
    "LICENSE",
    "docs/openapi.json",
    "meshd/spec/source/compose-spec.json",
    "tests/fuzz/",
    "tests/architecture/test_language.py",
    "requirements",
    "demo_services/requirements",
)
"""Texts of others, generated ones, and this list."""

STORED_NAMES = r"verdict|desk|outlet|ledgers?"
NAMES = r"nobody|somebody|anybody|whoever"
PHRASES = {
    r"so many": "the given number, or the name of the number",
    r"by lot": "at random",
    r"of late": "recently",
    r"anew": "again",
    r"(?<!there )is no (?!longer|more|less|later|earlier|worse)\w+": "is not a valid ...",
    r"beside": "next to, besides, alongside",
    r"comes? off": "succeeds, is removed",
    NAMES: "the caller, another program, no one by role",
    r"(?:short|shorter|usual|straight) way": "fast path, slow path",
    r"told": "reported, sent, said by",
    r"tells? of": "reports, describes",
    r"(?:and|or) the like": "and similar ones",
    r"such an?": "a, this",
    r"lets? go of": "releases, closes",
    r"stands? for": "means, represents",
    r"goes on": "continues",
    r"comes in": "arrives",
    r"at the (?:least|most)": "at least, at most",
    r"(?<!because )(?<!many )of (?:its|their) own": "own, separate",
    r"(?:hold|holds|held) against": "count as a failure of",
    r"(?:takes?|took|taken|taking) (?:it |them )?away": "removes",
    r"(?:gives?|gave|given|giving) back": "returns",
    r"judges?|judged|judging": "analyze, evaluate",
    r"crew|briefing|narrat(?:e|es|or|ed)|frontdoor|heartbeat": "the standard term",
    STORED_NAMES: "the standard term",
}
"""Regular expression → what to write instead. Word boundaries are added at both ends."""

NONE: frozenset[str] = frozenset()
EXCEPTIONS: dict[str, frozenset[str]] = {
    # `verdict` is the stored name of a field.
    "meshd/model/job.py": frozenset({STORED_NAMES}),
    "tests/unit/meshd/model/test_job.py": frozenset({STORED_NAMES}),
    # `nobody` is the name of a user.
    "tests/integration/daemon/test_deploy_admission.py": frozenset({NAMES}),
    "tests/unit/meshd/runtime/process/test_launch.py": frozenset({NAMES}),
    # Services of an example.
    "tests/unit/meshd/control/test_access_policy.py": frozenset({STORED_NAMES}),
    "tests/unit/meshd/spec/source/test_loader.py": frozenset({STORED_NAMES}),
}
"""File → phrases that are right there."""

UNCHECKED: tuple[str, ...] = ()
"""Folders and files that are still to be rewritten. Empty in the end."""


def texts() -> list[Path]:
    """Return the files that are written by hand and in English."""
    return [
        path
        for path in tracked()
        if path.suffix in SUFFIXES and not str(path.relative_to(ROOT)).startswith(LEFT_OUT)
    ]


def matches(text: str, allowed: frozenset[str] = frozenset()) -> list[tuple[int, str]]:
    """Return the line and a remark for each banned phrase in a text."""
    found = []
    # A phrase may be broken over two lines, with a comment mark at the start of the second.
    lines = re.sub(r"\n[ \t#]*", "\n", text)
    for phrase, instead in PHRASES.items():
        if phrase in allowed:
            continue
        spaced = phrase.replace(" ", r"[ \n]")
        for match in re.finditer(rf"\b(?:{spaced})\b", lines, re.IGNORECASE):
            line = lines.count("\n", 0, match.start()) + 1
            found.append((line, f"{match.group()!r} (instead: {instead})"))
    return found


def offences(path: Path) -> list[str]:
    """Return `file:line: phrase (instead: ...)` for each banned phrase in a file."""
    name = str(path.relative_to(ROOT))
    text = path.read_text(errors="replace")
    return [
        f"{name}:{line}: {remark}" for line, remark in matches(text, EXCEPTIONS.get(name, NONE))
    ]


def test_texts_have_no_banned_phrase() -> None:
    found = [
        offence
        for path in texts()
        if not str(path.relative_to(ROOT)).startswith(UNCHECKED)
        for offence in offences(path)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "banned"),
    [
        ("so\n    # many requests", True),
        ("besides the others", False),
        ("there is no job", False),
        ("it is no longer used", False),
        ("'x' is no path", True),
    ],
)
def test_phrases_are_found(text: str, banned: bool) -> None:
    assert bool(matches(text)) is banned
