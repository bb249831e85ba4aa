"""Parse values with units: durations to seconds, sizes to bytes, percentages to shares. Pure.

Used by the spec models, the readers of Compose keys, and the CLI. All functions raise ValueError
with what was expected.
"""

import re
from typing import Final

_SECONDS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_SHARE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(%?)")
_AMOUNT: Final = re.compile(r"\d{1,6}|\d{1,3}%")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?", re.IGNORECASE)
_EXPONENT: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_duration(value: object) -> float:
    """Parse `1m30s`, `200ms` or a number of seconds to seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if 0 <= value < float("inf"):
            return float(value)
    elif isinstance(value, str):
        text = value.strip()
        if _NUMBER.fullmatch(text):
            return float(text)
        parts = _DURATION_PART.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            return round(sum(float(number) * _SECONDS[unit] for number, unit in parts), 9)
    raise ValueError(f"{_show(value)} is not a valid duration; expected e.g. 200ms, 5s or 1m30s")


def parse_share(value: object) -> float:
    """Parse `5%` or a number to a share of one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        found = _SHARE.fullmatch(value.strip())
        if found:
            return round(float(found.group(1)) / (100.0 if found.group(2) else 1.0), 9)
    raise ValueError(f"{_show(value)} is not a valid share; expected e.g. 5% or 0.05")


def parse_count_or_percent(value: object) -> str:
    """Check a number or a percentage, and return it as text; empty if it is not given."""
    text = str(value).strip() if isinstance(value, int | str) else ""
    if isinstance(value, bool) or not (_AMOUNT.fullmatch(text) or value == ""):
        raise ValueError(f"{_show(value)} is not a valid amount; expected e.g. 2 or 25%")
    return text


def parse_size(value: object) -> int:
    """Parse `512m`, `1.5gb`, `64KiB` or a number of bytes to bytes; units are powers of 1024."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match:
            exponent = _EXPONENT[match.group(2).lower()]
            return int(float(match.group(1)) * 1024**exponent)
    raise ValueError(f"{_show(value)} is not a valid size; expected e.g. 512m, 1.5g or 65536")


def reject_boolean(value: object) -> object:
    """Return a value unchanged unless it is a boolean, which pydantic would accept as 0 or 1."""
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is not a whole number; expected e.g. 3")
    return value


def _show(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)
