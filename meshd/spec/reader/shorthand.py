"""Short forms under `x-mesh` → the long ones of the model. Pure; raises ValueError.

A short form is a string where the model has several fields: `health: /ready`,
`balance: peak-ewma`, `routes: [api.example.com/orders]`, `scale: {p99: 200ms}`.
"""

import re
import shlex
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from meshd.spec.cron_expression import parse_cron

Item = TypeVar("Item")
_QUANTILE: Final = re.compile(r"p(\d{1,2}(?:\.\d+)?)")
_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"\*|(\*\.)?{_LABEL}(\.{_LABEL})*")
_PATH: Final = re.compile(r"/[!-\"$->@-~]*")
_URL: Final = re.compile(r"https?://[!-~]+")
_TARGET: Final = re.compile(r"/[!-~]*")
_FIELD_NAME: Final = r"[!#-'*+.^_`|~0-9A-Za-z-]+"
_MATCH: Final = re.compile(rf"(header|cookie):{_FIELD_NAME}(=[ -~]*)?")
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)/(s|m|h)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_REDIRECT: Final = re.compile(r"[!-~]*")
_NOT_EDITABLE: Final = frozenset(
    {
        "connection", "content-length", "expect", "forwarded", "keep-alive", "proxy-connection",
        "te", "trailer", "transfer-encoding", "upgrade", "via", "x-request-id",
    }
)  # fmt: skip
"""Frames a message, holds for one connection, or is the proxy's own to say."""
_HASH_BY: Final = re.compile(rf"(header|cookie):{_FIELD_NAME}|address|")
_COOKIE: Final = re.compile(rf"({_FIELD_NAME})?")


def expand_health(value: object) -> object:
    """`/path`, `http`, `tcp`, `none`."""
    if isinstance(value, str):
        if value.startswith("/"):
            return {"type": "http", "path": value}
        if value in {"http", "tcp", "none"}:
            return {"type": value}
        raise ValueError(
            f"{value!r} is no health check; expected a path like /healthz, tcp, none, or a mapping"
        )
    return value


def expand_balance(value: object) -> object:
    """The algorithm alone."""
    return {"algorithm": value} if isinstance(value, str) else value


def expand_route(value: object) -> object:
    """`/path`, `host`, or `host/path`."""
    if not isinstance(value, str):
        return value
    if "://" in value:
        raise ValueError(f"{value!r} has a scheme; expected a host, a path, or host/path")
    host, slash, path = value.partition("/")
    return {"host": host or "*", "path": slash + path or "/"}


def expand_rate_limit(value: object) -> object:
    """A number of requests a second, or `600/m`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"rate": value}
    if isinstance(value, str):
        found = _RATE.fullmatch(value.strip())
        if not found:
            raise ValueError(f"{value!r} is no rate; expected one like 10/s or 600/m")
        rate = float(found.group(1)) / _SECONDS[found.group(2)]
        return {"rate": rate, "burst": max(1.0, float(found.group(1)))}
    return value


def expand_scale(value: object) -> object:
    """`p95: 200ms` for an objective of that share; without `max`, `max` is `min`."""
    if not isinstance(value, dict):
        return value
    data = dict(value)
    quantiles = [key for key in data if isinstance(key, str) and _QUANTILE.fullmatch(key)]
    if len(quantiles) + (data.get("objective") is not None) > 1:
        given = ", ".join([*quantiles, *(["objective"] if "objective" in data else [])])
        raise ValueError(f"{given} stand here together; expected one objective")
    for key in quantiles:
        data["objective"] = {"latency": data.pop(key), "share": float(key[1:])}
    if "max" not in data and str(data.get("min", "")).isdecimal():
        data["max"] = data["min"]
    return data


def parse_warm(value: object) -> object:
    """A number of replicas, or `auto`."""
    text = str(value)
    if value == "auto" or (text.isascii() and text.isdigit()):
        return value if value == "auto" else int(text)
    raise ValueError(f"{value!r} is no size of a pool; expected a number of replicas, or auto")


def expand_gate(value: object) -> object:
    """`false` for none, `true` for the usual one."""
    return {"enabled": value} if isinstance(value, bool) else value


def expand_hook(value: object) -> object:
    """The command alone, as text or as a list of words."""
    return {"command": value} if isinstance(value, str | list) else value


def check_steps(steps: tuple[float, ...]) -> tuple[float, ...]:
    """Shares of the traffic, each larger than the one before."""
    for before, after in pairwise(steps):
        if after <= before:
            raise ValueError(
                f"{after:.4g} comes after {before:.4g}; expected steps that grow, like 5%, 25%, 50%"
            )
    return steps


def wrap_in_list(value: object) -> object:
    """A single string, number or mapping stands for a list of it."""
    alone = isinstance(value, str | dict | float)
    return [value] if alone else value


def expand_job_schedule(value: object) -> object:
    """`schedule: "0 3 * * *"` is its cron expression."""
    return {"cron": value} if isinstance(value, str) else value


def split_command(value: object) -> object:
    """A command in one line is split as a shell would; it is not run by one."""
    return shlex.split(value) if isinstance(value, str) else value


def check_names_differ(schedules: tuple[Any, ...]) -> tuple[Any, ...]:
    """Schedules of one service must be told apart."""
    names = [each.name for each in schedules]
    if len(set(names)) < len(names):
        raise ValueError("two schedules have the same name; expected a name of its own for each")
    return schedules


def check_cron(text: str) -> str:
    """When a schedule begins."""
    parse_cron(text)
    return text


def check_timezone(name: str) -> str:
    """A name of the time zone database."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone; expected one like Europe/Berlin") from error
    return name


def check_url(text: str) -> str:
    """Where an HTTP server is, without a slash at its end."""
    if not _URL.fullmatch(text):
        raise ValueError(f"{text!r} is no address; expected one like http://prometheus:9090")
    return text.rstrip("/")


def check_host(host: str) -> str:
    """A route's host in lower case: exact, `*.suffix` or `*`."""
    lower = host.lower()
    if not _HOST.fullmatch(lower):
        raise ValueError(
            f"{host!r} is no host; expected one like api.example.com, *.example.com or *, "
            "without a port"
        )
    return lower


def check_path(path: str) -> str:
    """A route's path without the trailing slash: it matches whole segments either way."""
    if not _PATH.fullmatch(path):
        raise ValueError(f"{path!r} is no path; expected one like /orders, without spaces, ? and #")
    return path.rstrip("/") or "/"


def check_request_target(path: str) -> str:
    """A request target: a path, perhaps with a query."""
    if not _TARGET.fullmatch(path):
        raise ValueError(f"{path!r} is no path; expected one like /healthz")
    return path


def check_optional_request_target(path: str) -> str:
    """A request target, or nothing."""
    return check_request_target(path) if path else path


def check_hash_by(text: str) -> str:
    """What hashing hashes."""
    if not _HASH_BY.fullmatch(text):
        raise ValueError(f"{text!r} is no key; expected header:NAME, cookie:NAME or address")
    return text


def check_rate_limit_key(text: str) -> str:
    """What a rate limit goes by."""
    if not text:
        raise ValueError("the key is empty; expected header:NAME, cookie:NAME or address")
    return check_hash_by(text)


def check_match(conditions: tuple[str, ...]) -> tuple[str, ...]:
    """Conditions on headers and cookies."""
    for text in conditions:
        if not _MATCH.fullmatch(text):
            raise ValueError(
                f"{text!r} is no condition; expected header:NAME, header:NAME=VALUE, cookie:NAME "
                "or cookie:NAME=VALUE"
            )
    return conditions


def check_replacement(path: str) -> str:
    """What stands in for a route's path, or nothing."""
    return check_path(path) if path else path


def check_redirect(where: str) -> str:
    """Where a redirect leads, or nothing."""
    if not _REDIRECT.fullmatch(where):
        raise ValueError(f"{where!r} is no address; expected one like https://{{host}}{{path}}")
    rest = re.sub(r"\{(host|path|query)\}", "", where)
    if "{" in rest or "}" in rest:
        raise ValueError(f"{where!r} has unknown braces; expected {{host}}, {{path}} or {{query}}")
    return where


def check_header_values(fields: dict[str, str]) -> dict[str, str]:
    """Header fields to write."""
    for name, value in fields.items():
        _check_editable(name)
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of {name} has a control character; expected none")
    return fields


def check_added_headers(fields: dict[str, str]) -> dict[str, str]:
    """Header fields to write beside those that are there."""
    for name in fields:
        _check_not_host(name)
    return check_header_values(fields)


def check_removed_headers(names: tuple[str, ...]) -> tuple[str, ...]:
    """Header fields to take out."""
    for name in names:
        _check_not_host(name)
        _check_editable(name)
    return names


def _check_not_host(name: str) -> None:
    if name.lower() == "host":
        raise ValueError("a request has one Host; expected it under set, if anywhere")


def _check_editable(name: str) -> None:
    if not re.fullmatch(_FIELD_NAME, name):
        raise ValueError(f"{name!r} is no name of a header field; expected one like X-Team")
    lower = name.lower().replace("_", "-")
    if lower in _NOT_EDITABLE or lower.startswith("x-forwarded-"):
        raise ValueError(f"{name} is the proxy's to write; expected another field")


def check_cookie(name: str) -> str:
    """A cookie's name, or nothing."""
    if not _COOKIE.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a cookie; expected one like session")
    return name


def check_unique(items: Iterable[Item]) -> tuple[Item, ...]:
    """The same, unless two read alike."""
    kept = tuple(items)
    said = [str(item) for item in kept]
    for index, thing in enumerate(said):
        if thing in said[:index]:
            raise ValueError(f"{thing} is listed twice; expected each once")
    return kept
