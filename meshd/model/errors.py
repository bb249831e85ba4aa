"""Errors that several packages raise and handle."""

import sqlite3


class Rejected(Exception):
    """The request cannot be carried out and changed nothing; the text says why and what to
    do. The API answers 409 with it."""


class NotFound(Exception):
    """No project, service or replica of that name. The API answers 404 with it."""


class StoreWriteError(sqlite3.OperationalError):
    """The disk is full, read-only or gone; what was to be stored is as it was before."""
