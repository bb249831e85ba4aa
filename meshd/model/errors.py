"""Errors that several packages raise and handle.

Raised by `meshd.store`, `meshd.control` and `meshd.jobs`. `meshd.api.problems` maps them to HTTP
statuses, `meshd.api.client` maps these back, and `meshd.cli.session` prints them.
"""

import sqlite3


class Rejected(Exception):
    """A request cannot be carried out and changed nothing.

    The text says why and what to do. The API answers 409 with it.
    """


class NotFound(Exception):
    """No project, service, replica or job of that name exists. The API answers 404 with it."""


class StoreWriteError(sqlite3.OperationalError):
    """The state cannot be written: the disk is full, read-only or gone. Nothing was changed."""


class BadAuthority(Exception):
    """The certificate authority of the mesh cannot be used; the text says why and what to do."""


class ReaderTooSlow(Exception):
    """A reader of a stream is too far behind to continue it; it may ask again from where it is."""
