"""A binding to calls of OpenSSL that Python's `ssl` does not offer: ticket keys, groups, ciphers.

`contexts` calls it. It finds OpenSSL through Python's own `_ssl` module, so that it is the same
library. The place of the library's pointer in an `SSLContext` is that of CPython; where the binding
does not fit, `is_available` says so and nothing is called.
"""

import ctypes
import functools
import os
import ssl
import sys
from collections.abc import Sequence
from typing import Any, Final

TICKET_KEY_BYTES: Final = 80
"""A name of 16 bytes, and two keys of 32 bytes, for the MAC and for AES-256 (OpenSSL 1.1.0 and
later, SSL_CTX_set_tlsext_ticket_keys)."""
GROUPS: Final = b"X25519:P-256:P-384"
"""Groups for the key exchange: Mozilla's intermediate settings."""
CIPHERSUITES: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""Ciphers of TLS 1.3 in Mozilla's order. OpenSSL's own begins with AES-256, whose hash makes a
handshake dearer."""
PRIORITIZE_CHACHA: Final = 1 << 21
"""SSL_OP_PRIORITIZE_CHACHA (openssl/ssl.h)."""
_SET_TICKET_KEYS: Final = 59
"""SSL_CTRL_SET_TLSEXT_TICKET_KEYS (openssl/ssl.h)."""
_SET_TICKET_CALLBACK: Final = 72
"""SSL_CTRL_SET_TLSEXT_TICKET_KEY_CB (openssl/ssl.h)."""
_KEY_NAME: Final = slice(0, 16)
"""Where ticket keys have the name, by which a ticket says which keys it was made with."""
_MAC_KEY: Final = slice(16, 48)
"""The same of the key for the MAC."""
_CIPHER_KEY: Final = slice(48, 80)
"""The same of the key for AES-256."""
_IV_BYTES: Final = 16
"""The block size of AES."""
_SET_SESSION_CACHE_MODE: Final = 44
"""SSL_CTRL_SET_SESS_CACHE_MODE (openssl/ssl.h)."""
_SESSION_CACHE_OFF: Final = 0
"""SSL_SESS_CACHE_OFF (openssl/ssl.h)."""
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
    """Make and accept session tickets with these keys. Return False without the binding."""
    assert len(keys) == TICKET_KEY_BYTES
    return _control(context, _SET_TICKET_KEYS, TICKET_KEY_BYTES, keys)


def renew_tickets(context: ssl.SSLContext, keys: Sequence[bytes]) -> None:
    """Accept session tickets of all these keys, and give the client a new one of the first keys.
    Each handshake costs calls of Python. Only with the binding."""
    assert all(len(each) == TICKET_KEY_BYTES for each in keys)
    pointer = _pointer(context)
    assert pointer is not None
    chosen = _TICKET_KEYS.get(pointer)
    if chosen is None:
        chosen = _TICKET_KEYS[pointer] = _TicketKeys(tuple(keys))
    chosen.keys = tuple(keys)
    _library().SSL_CTX_callback_ctrl(pointer, _SET_TICKET_CALLBACK, chosen.callback)


def ticket_name(keys: bytes) -> bytes:
    """Return the name with which tickets of these keys begin, in clear text."""
    return keys[_KEY_NAME]


class _TicketKeys:
    """Chooses the keys of a ticket for OpenSSL, which by itself knows only one set of keys. What it
    does is what OpenSSL does with its own (SSL_CTX_set_tlsext_ticket_key_cb).

    - `keys`: the current ones first
    - `callback`: the function that OpenSSL calls
    """

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        self.keys = keys
        self.callback = _TICKET_CALLBACK(self._choose)

    def _choose(
        self, connection: int, name: int, vector: int, cipher: int, mac: int, encrypts: int
    ) -> int:
        """Prepare the encryption of a new ticket, or the decryption of a received one. Return 1; 2
        if the ticket shall be renewed; 0 if its keys are not known; -1 after an error."""
        del connection
        calls = _ticket_calls()
        if encrypts:
            key = self.keys[0]
            fresh = os.urandom(_IV_BYTES)
            ctypes.memmove(name, key, 16)
            ctypes.memmove(vector, fresh, _IV_BYTES)
            done = calls.EVP_EncryptInit_ex(
                cipher, calls.EVP_aes_256_cbc(), None, key[_CIPHER_KEY], fresh
            )
            return 1 if done and self._start_mac(calls, mac, key) else -1
        found = ctypes.string_at(name, 16)
        for index, key in enumerate(self.keys):
            if key[_KEY_NAME] == found:
                given = ctypes.string_at(vector, _IV_BYTES)
                done = calls.EVP_DecryptInit_ex(
                    cipher, calls.EVP_aes_256_cbc(), None, key[_CIPHER_KEY], given
                )
                return (2 if index else 1) if done and self._start_mac(calls, mac, key) else -1
        return 0

    @staticmethod
    def _start_mac(calls: Any, mac: int, key: bytes) -> bool:
        return bool(calls.HMAC_Init_ex(mac, key[_MAC_KEY], 32, calls.EVP_sha256(), None))


_TICKET_CALLBACK: Final = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
    ctypes.c_int,
)  # fmt: skip
_TICKET_KEYS: Final[dict[int, _TicketKeys]] = {}
"""By the address of the context in OpenSSL. Nothing is ever removed: connections may use a context
longer than Python does. A later context at the same address takes the entry over."""


@functools.cache
def _ticket_calls() -> Any:
    """The calls of OpenSSL that `_TicketKeys` makes. They are short and keep the interpreter's
    lock. Raises AttributeError where OpenSSL lacks one."""
    import _ssl

    calls = ctypes.PyDLL(getattr(_ssl, "__file__", None))
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    for made in (calls.EVP_aes_256_cbc, calls.EVP_sha256):
        made.argtypes, made.restype = (), pointer
    for made in (calls.EVP_EncryptInit_ex, calls.EVP_DecryptInit_ex):
        made.argtypes, made.restype = (pointer, pointer, pointer, text, text), number
    calls.HMAC_Init_ex.argtypes = (pointer, text, number, pointer, pointer)
    calls.HMAC_Init_ex.restype = number
    return calls


def set_groups(context: ssl.SSLContext) -> bool:
    """Set the groups of the key exchange, in the order of preference. Return False, with nothing
    changed, without the binding."""
    return _control(context, _SET_GROUPS_LIST, 0, GROUPS)


def set_ciphersuites(context: ssl.SSLContext) -> bool:
    """Set the ciphers of TLS 1.3, in the order of preference. Return False, with nothing changed,
    without the binding."""
    library = _library()
    return library is not None and bool(
        library.SSL_CTX_set_ciphersuites(_pointer(context), CIPHERSUITES)
    )


def disable_session_cache(context: ssl.SSLContext) -> None:
    """Keep no sessions in memory: tickets have them. Without the binding OpenSSL keeps the last
    20,480, and looks through all of them now and then."""
    _control(context, _SET_SESSION_CACHE_MODE, _SESSION_CACHE_OFF, b"")


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
        library.SSL_CTX_callback_ctrl.argtypes = (ctypes.c_void_p, ctypes.c_int, _TICKET_CALLBACK)
        library.SSL_CTX_callback_ctrl.restype = ctypes.c_long
        library.SSL_CTX_set_ciphersuites.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
        library.SSL_CTX_set_ciphersuites.restype = ctypes.c_int
        library.SSL_CTX_get_options.argtypes = (ctypes.c_void_p,)
        library.SSL_CTX_get_options.restype = ctypes.c_uint64
        library.OpenSSL_version_num.restype = ctypes.c_ulong
        _ticket_calls()
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
