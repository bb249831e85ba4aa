"""The request path: listen, parse, route, pick, connect, forward, observe.

Belongs here: everything that happens to a request, and the supervisor that holds the
listening sockets and the worker processes. Does not belong here: why a replica exists, how
many there should be, where configuration comes from. The package imports nothing of ours
outside itself; the control path sees it through `proxy.wire` and `proxy.policy` alone.

Another distribution named `proxy` exists on the package index; `MESHD` lets ours be told
from it.
"""

from typing import Final

MESHD: Final = True
