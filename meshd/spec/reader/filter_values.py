"""Validators of the filters of a route: expand short forms, and check values. Pure.

Called by pydantic through `meshd.spec.model.route` and `meshd.spec.model.route_filters`. `expand_*`
return a mapping, `check_*` return the value; all raise ValueError.
"""

import re
from ipaddress import ip_network
from typing import Final

_STATUS: Final = re.compile(r"[45](\d\d|xx)")
_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_ORIGIN: Final = re.compile(
    rf"[a-z][a-z0-9+.-]*://(\*\.)?({_LABEL}(\.{_LABEL})*|\[[0-9a-f:.]+\])(:\d{{1,5}})?"
)
_NAME: Final = re.compile(r"[!#-'*+.^_`|~0-9A-Za-z-]+")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]+/([a-z0-9!#$&^_.+-]+|\*)", re.IGNORECASE)
_USER: Final = re.compile(r"[^\x00-\x20\x7f:]{1,100}")
_BCRYPT: Final = re.compile(r"\$2[aby]\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53}")
"""A bcrypt hash. A cost above 16 takes seconds for each check."""
_REALM: Final = re.compile(r"[ -~]{1,100}")
_TARGET: Final = re.compile(r"/[!-~]*")
PAGE_STARTS: Final = ("<", "{")
"""First characters of a page: of HTML and of JSON."""
LARGEST_PAGE: Final = 64 * 1024
"""Bytes of a page. Every worker holds every page, and every snapshot carries it."""


def expand_switch(value: object) -> object:
    """Expand a boolean, or a page alone."""
    if isinstance(value, bool):
        return {} if value else None
    return {"page": value} if isinstance(value, str) else value


def expand_origins(value: object) -> object:
    """Expand one origin or a list of them."""
    return {"origins": value} if isinstance(value, str | list | tuple) else value


def expand_compression(value: object) -> object:
    """Expand a boolean."""
    if isinstance(value, bool):
        return {} if value else None
    return value


def check_media_types(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check media types without parameters."""
    for each in value:
        if not _MEDIA_TYPE.fullmatch(each):
            raise ValueError(f"{each!r} is not a media type; expected e.g. text/html or text/*")
    return value


def expand_basic_auth(value: object) -> object:
    """Expand the name of a file, or a list of users."""
    if isinstance(value, str):
        return {"file": value}
    return {"users": value} if isinstance(value, list | tuple) else value


def expand_forward_auth(value: object) -> object:
    """Expand `SERVICE`, or `SERVICE/PATH`."""
    if not isinstance(value, str):
        return value
    service, slash, path = value.partition("/")
    return {"service": service, "path": slash + path or "/"}


def check_users(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check users, each `NAME:HASH`. A message never has the hash."""
    names = set()
    for each in value:
        name, _, digest = each.partition(":")
        if not _USER.fullmatch(name):
            raise ValueError("a user has no valid name; expected NAME:HASH")
        if not _BCRYPT.fullmatch(digest):
            raise ValueError(
                f"user {name} has no bcrypt hash; expected the output of `meshd password {name}` "
                f"or `htpasswd -nB {name}`, in a Compose file with $$ for each $"
            )
        if name in names:
            raise ValueError(f"user {name} is listed twice")
        names.add(name)
    return value


def check_realm(value: str) -> str:
    """Check the name that browsers show."""
    if not _REALM.fullmatch(value):
        raise ValueError(f"{value!r} is not a valid realm; expected up to 100 printable characters")
    return value


def check_target(value: str) -> str:
    """Check a path with an optional query."""
    if not _TARGET.fullmatch(value):
        raise ValueError(f"{value!r} is not a valid path; expected e.g. /verify")
    return value


def is_page(value: str) -> bool:
    """Return whether text is a page, and not the name of a file."""
    return value.lstrip("\ufeff \t\r\n").startswith(PAGE_STARTS)


def check_page(value: str) -> str:
    """Check the size of a page; a name of a file is not checked here."""
    if is_page(value):
        value = value.lstrip("\ufeff \t\r\n")
        if len(value.encode()) > LARGEST_PAGE:
            raise ValueError(f"a page has at most {LARGEST_PAGE // 1024} KiB")
    return value


def check_status_pattern(value: str) -> str:
    """Check `503`, `4xx` or `5xx`."""
    if not _STATUS.fullmatch(value):
        raise ValueError(f"{value!r} is not a status of an error; expected e.g. 503, 4xx or 5xx")
    return value


def check_origins(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check origins: a scheme, a host and maybe a port, or `*`."""
    for each in value:
        if each != "*" and not _ORIGIN.fullmatch(each.lower()):
            raise ValueError(
                f"{each!r} is not a valid origin; expected e.g. https://app.example.com, "
                "https://*.example.com or *"
            )
    return value


def check_names(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check names of methods or header fields."""
    for each in value:
        if not _NAME.fullmatch(each):
            raise ValueError(f"{each!r} is not a valid name of a method or header field")
    return value


def check_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check networks in CIDR notation or addresses."""
    for each in value:
        try:
            ip_network(each, strict=False)
        except ValueError as error:
            raise ValueError(
                f"{each!r} is not a valid network; expected e.g. 203.0.113.7 or 10.0.0.0/8"
            ) from error
    return value
