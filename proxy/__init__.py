"""The data plane: accept, parse, route, pick an endpoint, forward, record.

Belongs here: everything that happens to a request, and the supervisor that holds the listening
sockets and the worker processes. Does not belong here: why a replica exists, how many replicas
there are, where configuration comes from. The package imports nothing of this project outside
itself. The control plane uses only `proxy.wire`, `proxy.policy`, `proxy.ipc` and `proxy.transport`.

Another distribution on the package index is also named `proxy`; `MESHD` distinguishes this one.
"""

from typing import Final

MESHD: Final = True
