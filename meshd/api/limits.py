"""Limits of the API, shared by the server (`server`, `handlers`) and the command line."""

from typing import Final

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""A request body must be smaller than this: enough for hundreds of services, and a bound on the
memory that one request takes."""

MAX_EVENTS: Final = 10_000
"""Largest number of events or decisions in one response."""

MAX_LOG_LINES: Final = 100_000
"""Largest number of past log lines of a replica in one response."""

MAX_RELEASES: Final = 100
"""Largest number of releases of a service in one response."""
