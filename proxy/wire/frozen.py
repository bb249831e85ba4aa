"""The base of every value that processes of one machine send each other.

Used by the other modules of `proxy.wire`, which hold the values themselves.
"""

import msgspec


class Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of everything on the wire: immutable. Most fields of most values have their default, and
    are not sent. Unknown fields are errors: a proxy must not ignore a policy that it does not
    know."""


class ToControl(Frozen, frozen=True, forbid_unknown_fields=False):
    """Base of what supervisors and workers tell the control process. It ignores unknown fields, so
    that the proxies of nodes can be upgraded before it."""
