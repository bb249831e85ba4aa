"""Where the page is served. Used by `page`, `meshd.daemon.main` and `meshd up`."""

from dataclasses import dataclass
from typing import Final

from meshd.api.tcp_address import TcpSettings

ADDRESS: Final = "127.0.0.1:9902"
"""The default address of the page."""


@dataclass(frozen=True, slots=True)
class PageSettings:
    """Where the page is served.

    - `tcp`: address, certificate and names; `client_ca` is not used.
    - `strict`: whether an address that is in use is an error; otherwise a free port is used.
    """

    tcp: TcpSettings
    strict: bool = False
