"""The base of every value that processes of one machine send each other.

Used by the other modules of `proxy.wire`, which hold the values themselves.
"""

import msgspec


class Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of everything on the wire: immutable; unknown fields are errors. Most fields of most
    values have their default, and are not sent."""
