"""HTTP/2 messages: the codec, the translation to and from HTTP/1.1, and the limits of a connection.

Client connections (`proxy.http2_downstream`) and connections to endpoints use it. The codec is an
extension module. Where it is not installed, the proxy speaks HTTP/1.1 only.
"""

from importlib.util import find_spec


def is_available() -> bool:
    """Return whether the codec is installed, so that `proxy.http2.codec` can be imported."""
    return find_spec("ngh2") is not None
