"""Base class of the values that are stored or sent as JSON."""

import msgspec


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """Base of everything that the API answers with."""
