"""A TLS certificate as the API and `meshd certificates` show it. Pure.

Made by `meshd.certificates`.
"""

from typing import Literal

from meshd.model.base import Value


class CertificateStatus(Value, frozen=True):
    """One certificate, or one that is wanted.

    - `names`: the host names.
    - `source`: `file`, or `acme` for one from a certificate authority.
    - `origin`: the file, or the URL of the authority's directory.
    - `state`: `valid`, `expired`, `pending` (none yet), or `failing` (the last attempt failed).
    - `expires_at`, `renew_at`: Unix times; 0 if there is none.
    - `retry_at`: Unix time of the next attempt after a failure; 0 without a failure.
    - `failures`, `error`: failed attempts in a row, and the reason of the last one.
    """

    names: tuple[str, ...]
    source: Literal["acme", "file"]
    origin: str
    state: Literal["valid", "expired", "pending", "failing"]
    expires_at: float = 0.0
    renew_at: float = 0.0
    retry_at: float = 0.0
    failures: int = 0
    error: str = ""
