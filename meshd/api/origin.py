"""Which Host and Origin headers a request at the TCP address may have. Pure.

`access` calls it. A page of another site can send requests to an address that its user reaches. The
Origin header shows that (cross-site request forgery). If the page's own name resolves to our
address, only the Host header shows it (DNS rebinding).
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit


def is_known_host(host: str, local: str, names: Collection[str]) -> bool:
    """Whether a Host header names this server: the address `local` that the client connected to,
    `localhost` if that is a loopback address, or one of `names`. A name may start with `*.`."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    here = ipaddress.ip_address(local.partition("%")[0])
    try:
        return ipaddress.ip_address(name) == here or name in names
    except ValueError:
        pass
    if here.is_loopback and name == "localhost":
        return True
    return any(_matches(name, known.lower()) for known in names)


def _matches(name: str, known: str) -> bool:
    if known.startswith("*."):
        return bool(name) and name.partition(".")[2] == known[2:]
    return name == known


def is_same_origin(origin: str | None, fetch_site: str | None, scheme: str, host: str) -> bool:
    """Whether a request comes from a program, or from a page of this server. `origin` and
    `fetch_site` are the headers Origin and Sec-Fetch-Site; None if the request has none."""
    if fetch_site not in (None, "same-origin", "none"):
        return False
    return origin is None or origin.lower() == f"{scheme}://{host}".lower()
