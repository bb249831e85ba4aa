"""A binding to calls of OpenSSL that Python's `ssl` does not offer: ticket keys and groups.

`contexts` calls it. It finds OpenSSL through Python's own `_ssl` module, so that it is the same
library. The place of the library's pointer in an `SSLContext` is that of CPython; where the binding
does not fit, `is_available` says so and nothing is called.
"""

import ctypes
import functools
import ssl
import sys
from typing import Any, Final

TICKET_KEY_BYTES: Final = 80
"""A name of 16 bytes, and two keys of 32 bytes, for the MAC and for AES-256 (OpenSSL 1.1.0 and
later, SSL_CTX_set_tlsext_ticket_keys)."""
GROUPS: Final = b"X25519:P-256:P-384"
"""Groups for the key exchange: Mozilla's intermediate settings."""
_SET_TICKET_KEYS: Final = 59
"""SSL_CTRL_SET_TLSEXT_TICKET_KEYS (openssl/ssl.h)."""
_SET_GROUPS_LIST: Final = 92
"""SSL_CTRL_SET_GROUPS_LIST (openssl/ssl.h)."""
_POINTER_OFFSET: Final = object.__basicsize__
"""Where `PySSLContext` has its `SSL_CTX *`: behind the object header (Modules/_ssl.c)."""
_NEWEST: Final = (3, 14)
"""The newest Python whose `PySSLContext` was looked at."""


@functools.cache
def is_available() -> bool:
    """Return whether the binding fits this Python and its OpenSSL."""
    return _library() is not None


def set_ticket_keys(context: ssl.SSLContext, keys: bytes) -> bool:
    """Set the keys of session tickets. Return False, with nothing changed, without the binding."""
    assert len(keys) == TICKET_KEY_BYTES
    return _control(context, _SET_TICKET_KEYS, len(keys), keys)


def set_groups(context: ssl.SSLContext) -> bool:
    """Set the groups of the key exchange, in the order of preference. Return False, with nothing
    changed, without the binding."""
    return _control(context, _SET_GROUPS_LIST, 0, GROUPS)


def _control(context: ssl.SSLContext, command: int, number: int, data: bytes) -> bool:
    library = _library()
    if library is None:
        return False
    return bool(library.SSL_CTX_ctrl(_pointer(context), command, number, data))


def _pointer(context: ssl.SSLContext) -> int | None:
    return ctypes.c_void_p.from_address(id(context) + _POINTER_OFFSET).value


@functools.cache
def _library() -> Any:
    """The OpenSSL that `ssl` uses; None if the binding does not fit."""
    if sys.implementation.name != "cpython" or sys.version_info[:2] > _NEWEST:
        return None
    try:
        import _ssl

        # A module that is part of the interpreter has no file.
        library = ctypes.CDLL(getattr(_ssl, "__file__", None))
        library.SSL_CTX_ctrl.argtypes = (
            ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p,
        )  # fmt: skip
        library.SSL_CTX_ctrl.restype = ctypes.c_long
        library.SSL_CTX_get_options.argtypes = (ctypes.c_void_p,)
        library.SSL_CTX_get_options.restype = ctypes.c_uint64
        library.OpenSSL_version_num.restype = ctypes.c_ulong
    except (ImportError, OSError, AttributeError):
        return None
    if library.OpenSSL_version_num() != ssl.OPENSSL_VERSION_NUMBER:
        return None
    # The pointer is right if a setting read through it is the one that Python shows.
    probe = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    probe.options |= ssl.OP_NO_TICKET
    mask = (1 << 31) - 1
    if library.SSL_CTX_get_options(_pointer(probe)) & mask != int(probe.options) & mask:
        return None
    return library
