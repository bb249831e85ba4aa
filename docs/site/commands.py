"""Find the `meshd` commands in the pages.

The reference of the command line shows them as examples, and a test parses each of them with the
command line's own parser.
"""

import re
import shlex
from dataclasses import dataclass
from typing import Final

BLOCK: Final = re.compile(r"^(`{3,})(\w*)[^\n]*\n(.*?)^\1 *$", re.MULTILINE | re.DOTALL)
SHELL: Final = {"", "sh", "bash", "shell", "console"}
"""Languages of fenced blocks that can contain commands."""
INDENTED: Final = re.compile(r"^ {4}(\S.*)$", re.MULTILINE)
END_OF_COMMAND: Final = {"&&", "||", "|", ";", ">", ">>", "<", "2>", "&"}


@dataclass(frozen=True)
class CommandLine:
    """A command in a page.

    - `words`: the words after `meshd`
    - `line`: the line as written, without a prompt and a comment
    - `comment`: the comment behind it; empty if there is none
    """

    words: tuple[str, ...]
    line: str
    comment: str


def code_lines(text: str) -> list[str]:
    """Return the lines of all shell blocks of a page, continued lines joined."""
    blocks = [body for _, language, body in BLOCK.findall(text) if language in SHELL]
    indented = INDENTED.findall(BLOCK.sub("", text).replace("\\\n", " "))
    return [
        line for block in (*blocks, *indented) for line in block.replace("\\\n", " ").splitlines()
    ]


def find_commands(text: str) -> list[CommandLine]:
    """Return every `meshd` command of the shell blocks of a page, in order."""
    found: list[CommandLine] = []
    for each in code_lines(text):
        line = re.sub(r"^(?:\$ |# (?=meshd ))", "", each.strip())
        if not re.match(r"(?:.*\s)?meshd\s", line):
            continue
        shown, _, comment = line.partition(" #")
        shown = " ".join(shown.split())
        found += [CommandLine(each, shown, comment.strip()) for each in split(shown)]
    return found


def find_mentions(text: str) -> list[tuple[str, ...]]:
    """Return the words after `meshd` of each command that a sentence of a page names, which may
    have no arguments or placeholders."""
    plain = INDENTED.sub("", BLOCK.sub("", text))
    spans = re.findall(r"`meshd\s+([^`]+)`", plain)
    return [tuple(re.split(r"[\s|\[\]…]+", span.strip("[]… "))) for span in spans]


def split(line: str) -> list[tuple[str, ...]]:
    """Return the words after each `meshd` that starts a command of a line."""
    lexer = shlex.shlex(re.sub(r"\$\([^)]*\)", "x", line), posix=True, punctuation_chars="&|;<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    found, current = [], list[str]()
    for word in [*lexer, ";"]:
        if word in END_OF_COMMAND:
            while current and re.fullmatch(r"[A-Z_]+=.*|sudo|exec", current[0]):
                current.pop(0)
            if current[:1] == ["meshd"] and len(current) > 1:
                found.append(tuple(each.strip("[]") for each in current[1:]))
            current = []
        else:
            current.append(word)
    return found
