"""User names and passwords of a route (RFC 7617, Basic). Pure.

Used by `proxy.request_filters.basic_auth`. Passwords are stored as bcrypt hashes, the form that
`htpasswd -B` writes. bcrypt is slow on purpose, so `check` must not run on the event loop.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Final

from proxy.wire.filters import BasicAuth

_LONGEST_PASSWORD: Final = 72
"""Bytes that bcrypt reads; a longer password would match all that begin like it."""
_LARGEST_FIELD: Final = 1024
"""Bytes of an Authorization field that are read."""
USER_FIELD: Final = b"X-Auth-User"
"""Field of requests to the service with the user's name."""


class Credentials:
    """What a client sent.

    - `user`, `password`: as UTF-8.
    """

    __slots__ = ("password", "user")

    def __init__(self, user: bytes, password: bytes) -> None:
        self.user = user
        self.password = password


def parse_credentials(field: bytes | None) -> Credentials | None:
    """Return the credentials of an Authorization field; None if it has none that can be read."""
    if field is None or len(field) > _LARGEST_FIELD or field[:6].lower() != b"basic ":
        return None
    try:
        text = base64.b64decode(field[6:].strip(b" "), validate=True)
    except binascii.Error:
        return None
    user, colon, password = text.partition(b":")
    if not colon or not user or any(byte < 0x20 or byte == 0x7F for byte in text):
        return None
    return Credentials(user, password)


class PasswordTable:
    """The users of a route.

    - `challenge`: field line of a response that asks for credentials.
    """

    def __init__(self, config: BasicAuth) -> None:
        # Only here: it takes 30 ms to load, and few proxies need it.
        from bcrypt import checkpw

        self._check_hash = checkpw
        self._hashes = {name.encode(): value.encode() for name, value in config.users}
        # A check for an unknown user takes as long as one for a known user.
        self._any_hash = next(iter(self._hashes.values()), b"")
        realm = config.realm.replace("\\", "\\\\").replace('"', '\\"').encode()
        self.challenge = b'WWW-Authenticate: Basic realm="%b", charset="UTF-8"\r\n' % realm

    def digest(self, given: Credentials, key: bytes) -> bytes:
        """Return a keyed digest of these credentials and of the hash that they are checked
        against, under which a successful check may be remembered."""
        known = self._hashes.get(given.user, b"")
        text = b"\0".join((known, given.user, given.password))
        return hmac.digest(key, text, hashlib.sha256)

    def check(self, given: Credentials) -> bool:
        """Return whether the user exists and the password is right. Takes a while, the same for all
        users."""
        known = self._hashes.get(given.user)
        password = given.password
        right = False
        if password and len(password) <= _LONGEST_PASSWORD:
            try:
                right = self._check_hash(password, known or self._any_hash)
            except ValueError:
                right = False
        return right and known is not None
