r"""Parse `.env` and `env_file` files: `NAME=value`, with the values that Docker Compose gives.

Called by `meshd.spec.source.loader` and `meshd.spec.reader.host_files`.

- Only a line feed ends a line. `NAME: value` and `export NAME=value` are the same as `NAME=value`.
- An unquoted value ends at ` #` (a space, then the sign) or at the end of the line. White space
  around it is cut.
- A quoted value may span lines. `\'` in single quotes and `\"` in double quotes are quotes.
- Double-quoted values know the escapes of `_ESCAPES` and `\0NNN`, a character by its octal number.
- Unquoted and double-quoted values may use variables, see `meshd.spec.source.interpolate`.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

from meshd.spec.errors import Diagnostics, Location, Problem
from meshd.spec.source.interpolate import InterpolationError, interpolate

_BYTE_ORDER_MARK: Final = "\ufeff"
_BLANKS: Final = "\t\v\f\r \x85\xa0"
"""White space within a line."""
_SPACES: Final = (
    _BLANKS + "\n\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
)
"""White space by Unicode, without the separators U+001C to U+001F that Python also counts."""
_EXPORT: Final = re.compile(r"export[\t\n\f\r ]+")
_NAME_SIGNS: Final = "_.-[]"
_ESCAPE: Final = re.compile(r'\\([abcfnrtv$"\\]|0\d{0,3})')
_ESCAPES: Final = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    '"': '"',
    "\\": "\\",
    "$": "$$",
}
_OCTAL_BYTE: Final = re.compile(r"0[0-3][0-7]{2}")


def decode_env_file(content: bytes) -> str:
    """Return the text of an env file without a byte order mark. Raises UnicodeDecodeError."""
    return content.decode("utf-8").removeprefix(_BYTE_ORDER_MARK)


def parse_env_file(
    text: str,
    file: str,
    environment: Mapping[str, str],
    diagnostics: Diagnostics,
    earlier: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the variables of one file; errors are recorded, and their lines left out.

    A value may use the variables of the lines before it and of `earlier` files; `environment` takes
    precedence over both. A name without a value gets its value from `environment`, and is left out
    if it is not set there.
    """
    parser = _Parser(text, file, environment, diagnostics, earlier or {})
    parser.parse()
    return parser.found


def parse_raw_env_file(
    text: str, file: str, environment: Mapping[str, str], diagnostics: Diagnostics
) -> dict[str, str]:
    """Return the variables of a file of `format: raw`: all after the first `=` of a line is the
    value, without quotes, escapes, variables and comments after it."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r").lstrip(_SPACES)
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not name or any(character in _SPACES for character in name):
            _add_problem(diagnostics, file, number, "", _describe_invalid(line))
        elif equals:
            found[name] = value
        elif name in environment:
            found[name] = environment[name]
    return found


class _Parser:
    """Reads statements from left to right; `_at` is the index of the next character."""

    def __init__(
        self,
        text: str,
        file: str,
        environment: Mapping[str, str],
        diagnostics: Diagnostics,
        earlier: Mapping[str, str],
    ) -> None:
        self.found: dict[str, str] = {}
        self._text = text
        self._file = file
        self._environment = environment
        self._diagnostics = diagnostics
        self._earlier = earlier
        self._at = 0

    def parse(self) -> None:
        """Read all statements into `found`."""
        while self._skip_to_statement():
            start = self._at
            name, has_value = self._read_name()
            if name is None:
                line = self._line_end()
                self._fail(start, "", _describe_invalid(self._text[start:line].strip(_SPACES)))
                self._at = line
            elif not has_value:
                if name in self._environment:
                    self.found[name] = self._environment[name]
            else:
                self._read_value(name)

    def _skip_to_statement(self) -> bool:
        """Skip white space and comments; False at the end of the text."""
        while self._at < len(self._text):
            if self._text[self._at] == "#":
                self._at = self._line_end()
            elif self._text[self._at] not in _SPACES:
                return True
            else:
                self._at += 1
        return False

    def _read_name(self) -> tuple[str | None, bool]:
        """Return the name and whether a value follows; the name is None if it is not valid."""
        export = _EXPORT.match(self._text, self._at)
        start = self._at = export.end() if export else self._at
        for index in range(start, len(self._text)):
            character = self._text[index]
            if character in "=:\n":
                break
            if not _can_be_in_name(character):
                return None, False
        else:
            index, character = len(self._text), ""
        name = self._text[start:index].rstrip(_SPACES)
        if not name or any(blank in name for blank in _BLANKS):
            return None, False
        self._at = min(index + 1, len(self._text))
        return name, character in ("=", ":")

    def _read_value(self, name: str) -> None:
        while self._at < len(self._text) and self._text[self._at] in _BLANKS:
            self._at += 1
        start = self._at
        quote = self._text[start : start + 1]
        try:
            if quote in ("'", '"'):
                self._at, inner = _read_quoted(self._text, start)
                value = inner if quote == "'" else self._expand(_replace_escapes(inner))
                self._check_end()
            else:
                self._at = self._line_end()
                raw = self._text[start : self._at].partition(" #")[0].rstrip(_SPACES)
                value = self._expand(raw)
            self.found[name] = value
        except (InterpolationError, ValueError) as error:
            self._fail(start, name, str(error))
            self._at = max(self._at, self._line_end())

    def _check_end(self) -> None:
        """Record text that touches a closing quote. After white space, a statement may follow."""
        following = self._text[self._at : self._at + 1]
        if following and following != "#" and following not in _SPACES:
            end = self._line_end()
            rest = self._text[self._at : end].strip(_SPACES)
            self._at = end
            raise ValueError(f"{rest!r} touches the closing quote; expected white space or nothing")

    def _expand(self, value: str) -> str:
        known = {**self._earlier, **self.found, **self._environment} if "$" in value else {}
        return interpolate(value, known, _ignore_unset)

    def _line_end(self) -> int:
        end = self._text.find("\n", self._at)
        return len(self._text) if end < 0 else end

    def _fail(self, at: int, name: str, text: str) -> None:
        line = self._text.count("\n", 0, at) + 1
        _add_problem(self._diagnostics, self._file, line, name, text)


def _can_be_in_name(character: str) -> bool:
    return (
        character in _NAME_SIGNS
        or character in _BLANKS
        or character.isalpha()
        or unicodedata.category(character).startswith("N")
    )


def _read_quoted(text: str, start: int) -> tuple[int, str]:
    """Return the index after the closing quote, and the text between the quotes with escaped
    quotes replaced. Raises ValueError if the quote is not closed."""
    quote = text[start]
    out: list[str] = []
    index = start + 1
    while index < len(text):
        character = text[index]
        if character == quote:
            return index + 1, "".join(out)
        if character == "\\" and index + 1 < len(text):
            index += 1
            out.append(text[index] if text[index] == quote else f"\\{text[index]}")
        else:
            out.append(character)
        index += 1
    raise ValueError("the quote is not closed; expected a closing quote")


def _replace_escapes(text: str) -> str:
    return _ESCAPE.sub(_replace_escape, text)


def _replace_escape(match: re.Match[str]) -> str:
    """Return the character of an escape; an octal number above 377, or with fewer than three
    digits, only loses its 0, as in Compose."""
    word = match[1]
    if word.startswith("0"):
        return chr(int(word, 8)) if _OCTAL_BYTE.fullmatch(word) else f"\\{word[1:]}"
    return _ESCAPES.get(word, match[0])


def _describe_invalid(line: str) -> str:
    return f"{line!r} is not a valid variable; expected NAME=value"


def _add_problem(diagnostics: Diagnostics, file: str, line: int, name: str, text: str) -> None:
    diagnostics.problems.append(Problem(Location(file, line), "", name, text))


def _ignore_unset(_name: str) -> None:
    """Replace an unset variable in an env file by nothing without a warning, as shells do."""
