"""Names of the reasons for which a filter answers a request itself. Pure.

`proxy.request.failure` has the rest of each row; `proxy.filters.compiled` compares them.
"""

from typing import Final

PREFLIGHT: Final = "preflight"
MAINTENANCE: Final = "maintenance"
FORWARD_AUTH: Final = "forward-auth"
WAKING: Final = "waking"
