"""Base classes of the values that are stored or sent as JSON. Pure.

A `Value` is stored, or sent by the daemon; a `RequestBody` is sent to the daemon. They differ in
how a reader treats a field that it does not know.
"""

import msgspec


class Value(msgspec.Struct, frozen=True, omit_defaults=False):
    """Base of what the daemon stores and responds with. A reader ignores unknown fields, so that
    an older command line works with a newer daemon."""


class RequestBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """Base of what a client sends. The daemon refuses unknown fields: an option that it does not
    know, or a misspelt one, must not be dropped silently."""
