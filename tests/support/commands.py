"""The `meshd` command in tests, called in this process."""

from collections.abc import Awaitable, Callable

from click.testing import Result

Meshd = Callable[..., Awaitable[Result]]
"""Runs a command with these arguments."""
