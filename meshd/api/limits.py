"""What the API takes at most."""

from typing import Final

LARGEST_BODY: Final = 8 * 1024 * 1024
"""Bytes of a request's body, which must stay below it."""
