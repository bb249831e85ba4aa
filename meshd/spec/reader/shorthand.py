"""Validators of the spec models: expand short forms under `x-mesh`, and check values. Pure.

Called by pydantic through `meshd.spec.model`. A short form is a single value in place of a mapping:
`health: /ready`, `balance: peak-ewma`, `routes: [api.example.com/orders]`, `scale: {p99: 200ms}`.
`expand_*` return the mapping, `check_*` return the value, and both raise ValueError.
"""

import re
import shlex
from collections.abc import Iterable
from ipaddress import IPv6Address
from itertools import pairwise
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from meshd.spec.cron_expression import parse_cron
from proxy.http2.grpc import CODES

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
        "te", "trailer", "cdn-loop", "transfer-encoding", "upgrade", "via", "x-request-id",
    }
)  # fmt: skip
"""Fields that frame a message, apply to one connection, or are written by the proxy."""
_PROBE_HOST: Final = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")
_SERVER_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_NOT_PROBE_FIELDS: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields that frame a probe or apply to its connection, and Host, which has a setting."""
_HASH_BY: Final = re.compile(rf"(header|cookie):{_FIELD_NAME}|address|")
_COOKIE: Final = re.compile(rf"({_FIELD_NAME})?")


def expand_health(value: object) -> object:
    """Expand `/path`, `http`, `tcp` or `none`."""
    if isinstance(value, str):
        if value.startswith("/"):
            return {"type": "http", "path": value}
        if value in {"auto", "http", "grpc", "tcp", "none"}:
            return {"type": value}
        raise ValueError(
            f"{value!r} is not a valid health check; expected a path such as /healthz, tcp, none, "
            "or a mapping"
        )
    if isinstance(value, dict) and "path" in value and "type" not in value:
        return {**value, "type": "http"}
    return value


def expand_balance(value: object) -> object:
    """Expand the name of an algorithm."""
    return {"algorithm": value} if isinstance(value, str) else value


def expand_placement(value: object) -> object:
    """Expand the name of a strategy."""
    return {"strategy": value} if isinstance(value, str) else value


def expand_drain(value: object) -> object:
    """Expand a single duration, that of requests."""
    return {"requests": value} if isinstance(value, str | int | float) else value


def expand_route(value: object) -> object:
    """Expand `/path`, `host` or `host/path`."""
    if not isinstance(value, str):
        return value
    if "://" in value:
        raise ValueError(f"{value!r} has a scheme; expected a host, a path, or host/path")
    host, slash, path = value.partition("/")
    return {"host": host or "*", "path": slash + path or "/"}


def expand_rate_limit(value: object) -> object:
    """Expand a number of requests per second, or a rate such as `600/m`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"rate": value}
    if isinstance(value, str):
        found = _RATE.fullmatch(value.strip())
        if not found:
            raise ValueError(f"{value!r} is not a valid rate; expected e.g. 10/s or 600/m")
        rate = float(found.group(1)) / _SECONDS[found.group(2)]
        return {"rate": rate, "burst": max(1.0, float(found.group(1)))}
    return value


def expand_scale(value: object) -> object:
    """Expand `p95: 200ms` to an objective, and set `max` to `min` if it is missing."""
    if not isinstance(value, dict):
        return value
    data = dict(value)
    quantiles = [key for key in data if isinstance(key, str) and _QUANTILE.fullmatch(key)]
    if len(quantiles) + (data.get("objective") is not None) > 1:
        given = ", ".join([*quantiles, *(["objective"] if "objective" in data else [])])
        raise ValueError(f"{given} are set together; expected one objective")
    for key in quantiles:
        data["objective"] = {"latency": data.pop(key), "share": float(key[1:])}
    if "max" not in data and str(data.get("min", "")).isdecimal():
        data["max"] = data["min"]
    return data


def parse_warm(value: object) -> object:
    """Parse the size of a warm pool: a number of replicas, or `auto`."""
    text = str(value)
    if value == "auto" or (text.isascii() and text.isdigit()):
        return value if value == "auto" else int(text)
    raise ValueError(
        f"{value!r} is not a valid size of a warm pool; expected a number of replicas, or auto"
    )


def expand_gate(value: object) -> object:
    """Expand a boolean: whether the canary analysis is enabled."""
    return {"enabled": value} if isinstance(value, bool) else value


def expand_hook(value: object) -> object:
    """Expand a command, given as text or as a list of words."""
    return {"command": value} if isinstance(value, str | list) else value


def check_steps(steps: tuple[float, ...]) -> tuple[float, ...]:
    """Check that each share of the traffic is larger than the previous one."""
    for before, after in pairwise(steps):
        if after <= before:
            raise ValueError(
                f"the step {after:.4g} follows {before:.4g}; expected increasing steps, e.g. 5%, "
                "25%, 50%"
            )
    return steps


def wrap_in_list(value: object) -> object:
    """Wrap a single string, number or mapping in a list."""
    alone = isinstance(value, str | dict | float | int)
    return [value] if alone else value


def expand_job_schedule(value: object) -> object:
    """Expand a cron expression."""
    return {"cron": value} if isinstance(value, str) else value


def expand_backup_hooks(value: object) -> object:
    """Expand the command that quiesces a service."""
    if value is None or isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a command; expected one, or a mapping with quiesce")
    return {"quiesce": value} if isinstance(value, str | list | tuple) else value


def check_not_empty(command: tuple[str, ...]) -> tuple[str, ...]:
    """Check that a command has words."""
    if not command:
        raise ValueError("the command is empty; expected the command to run")
    return command


def split_command(value: object) -> object:
    """Split a command into words as a shell does. No shell runs it."""
    return shlex.split(value) if isinstance(value, str) else value


def check_names_differ(schedules: tuple[Any, ...]) -> tuple[Any, ...]:
    """Check that the schedules of a service have different names."""
    names = [each.name for each in schedules]
    if len(set(names)) < len(names):
        raise ValueError("two schedules have the same name; expected a unique name for each")
    return schedules


def check_cron(text: str) -> str:
    """Check a cron expression."""
    parse_cron(text)
    return text


def check_timezone(name: str) -> str:
    """Check a name of the time zone database."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"{name!r} is not a valid time zone; expected e.g. Europe/Berlin"
        ) from error
    return name


def check_url(text: str) -> str:
    """Check the URL of an HTTP server, and remove a trailing slash."""
    if not _URL.fullmatch(text):
        raise ValueError(f"{text!r} is not a valid URL; expected e.g. http://prometheus:9090")
    return text.rstrip("/")


def check_host(host: str) -> str:
    """Check the host of a route (exact, `*.suffix` or `*`), and return it in lower case."""
    lower = host.lower()
    if not _HOST.fullmatch(lower):
        raise ValueError(
            f"{host!r} is not a valid host; expected e.g. api.example.com, *.example.com or *, "
            "without a port"
        )
    return lower


def check_path(path: str) -> str:
    """Check the path of a route, and remove a trailing slash: routes match whole path segments with
    or without it."""
    if not _PATH.fullmatch(path):
        raise ValueError(
            f"{path!r} is not a valid path; expected e.g. /orders, without spaces, ? and #"
        )
    return path.rstrip("/") or "/"


def check_request_target(path: str) -> str:
    """Check a request target: a path with an optional query."""
    if not _TARGET.fullmatch(path):
        raise ValueError(f"{path!r} is not a valid path; expected e.g. /healthz")
    return path


def check_optional_request_target(path: str) -> str:
    """Check a request target, unless it is empty."""
    return check_request_target(path) if path else path


def check_probe_host(host: str) -> str:
    """Check the Host of a probe: a name or an address with an optional port, or empty."""
    if host and not _PROBE_HOST.fullmatch(host):
        raise ValueError(
            f"{host!r} is not a valid host; expected e.g. shop.example.com or shop.example.com:8080"
        )
    return host


def check_probe_headers(fields: dict[str, str]) -> dict[str, str]:
    """Check the header fields of a probe."""
    for name, value in fields.items():
        if not re.fullmatch(_FIELD_NAME, name):
            raise ValueError(f"{name!r} is not a valid header field name; expected e.g. X-Team")
        if name.lower() == "host":
            raise ValueError("Host is set in headers; expected it in health.host")
        if name.lower() in _NOT_PROBE_FIELDS:
            raise ValueError(f"{name} is written by the probe; expected another field")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of {name} has a control character; remove it")
    return fields


def check_server_name(name: str) -> str:
    """Check the name that a certificate must have: a host or an address, or empty."""
    if name and not _SERVER_NAME.fullmatch(name) and not _is_v6_address(name):
        raise ValueError(
            f"{name!r} is not a valid name; expected e.g. orders.example.com, without a port"
        )
    return name


def _is_v6_address(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def expand_upstream_tls(value: object) -> object:
    """Expand a boolean: whether connections to replicas are encrypted."""
    if isinstance(value, bool):
        return {} if value else None
    return value


def check_grpc_codes(names: tuple[str, ...]) -> tuple[str, ...]:
    """Check names of status codes of gRPC, and return them in upper case."""
    found = tuple(name.upper().replace("-", "_") for name in names)
    for name in found:
        if name not in CODES or name == "OK":
            raise ValueError(
                f"{name!r} is not a status code of a failed call; expected e.g. UNAVAILABLE"
            )
    return found


def check_hash_by(text: str) -> str:
    """Check the key of a hash or a rate limit."""
    if not _HASH_BY.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a valid key; expected header:NAME, cookie:NAME or address"
        )
    return text


def check_rate_limit_key(text: str) -> str:
    """Check the key of a rate limit, which must not be empty."""
    if not text:
        raise ValueError("the key is empty; expected header:NAME, cookie:NAME or address")
    return check_hash_by(text)


def check_match(conditions: tuple[str, ...]) -> tuple[str, ...]:
    """Check conditions on headers and cookies."""
    for text in conditions:
        if not _MATCH.fullmatch(text):
            raise ValueError(
                f"{text!r} is not a valid condition; expected header:NAME, header:NAME=VALUE, "
                "cookie:NAME or cookie:NAME=VALUE"
            )
    return conditions


def check_replacement(path: str) -> str:
    """Check the replacement of a route's path, unless it is empty."""
    return check_path(path) if path else path


def check_redirect(location: str) -> str:
    """Check the target of a redirect, which may be empty."""
    if not _REDIRECT.fullmatch(location):
        raise ValueError(f"{location!r} is not a valid URL; expected e.g. https://{{host}}{{path}}")
    rest = re.sub(r"\{(scheme|host|path|query)\}", "", location)
    if "{" in rest or "}" in rest:
        raise ValueError(
            f"{location!r} has an unknown placeholder; expected "
            "{scheme}, {host}, {path} or {query}"
        )
    return location


def check_header_values(fields: dict[str, str]) -> dict[str, str]:
    """Check header fields to write."""
    for name, value in fields.items():
        _check_editable(name)
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of {name} has a control character; remove it")
    return fields


def check_added_headers(fields: dict[str, str]) -> dict[str, str]:
    """Check header fields to write in addition to existing ones."""
    for name in fields:
        _check_not_host(name)
    return check_header_values(fields)


def check_removed_headers(names: tuple[str, ...]) -> tuple[str, ...]:
    """Check names of header fields to remove."""
    for name in names:
        _check_not_host(name)
        _check_editable(name)
    return names


def _check_not_host(name: str) -> None:
    if name.lower() == "host":
        raise ValueError("a request must have exactly one Host; use set to replace it")


def _check_editable(name: str) -> None:
    if not re.fullmatch(_FIELD_NAME, name):
        raise ValueError(f"{name!r} is not a valid header field name; expected e.g. X-Team")
    lower = name.lower().replace("_", "-")
    if lower in _NOT_EDITABLE or lower.startswith("x-forwarded-"):
        raise ValueError(f"{name} is written by the proxy; expected another field")


def check_cookie(name: str) -> str:
    """Check the name of a cookie, which may be empty."""
    if not _COOKIE.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid cookie name; expected e.g. session")
    return name


def check_unique(items: Iterable[Item]) -> tuple[Item, ...]:
    """Check that no two items have the same text."""
    kept = tuple(items)
    texts = [str(item) for item in kept]
    for index, text in enumerate(texts):
        if text in texts[:index]:
            raise ValueError(f"{text} is listed twice; expected it once")
    return kept
