"""Tokens and the audit log, as the API uses them.

Made by `meshd.daemon.wiring`; implements `meshd.api.port.AccessControl`.
"""

from collections.abc import Callable, Sequence
from typing import Final

import structlog

from meshd.model.access import AuditEntry, CreatedToken, Identity, NewToken, Role, Token
from meshd.model.errors import NotFound, StoreWriteError
from meshd.store.audit import AuditLog
from meshd.store.tokens import TokenTable

_log: Final = structlog.stdlib.get_logger(__name__)


class AccessManager:
    """See `meshd.api.port.AccessControl`."""

    def __init__(self, tokens: TokenTable, audit: AuditLog, clock: Callable[[], float]) -> None:
        self._tokens = tokens
        self._audit = audit
        self._clock = clock

    def authenticate(self, secret: str) -> Token | None:
        """See `AccessControl.authenticate`."""
        return self._tokens.find(secret, self._clock())

    def tokens(self) -> Sequence[Token]:
        """See `AccessControl.tokens`."""
        return self._tokens.all()

    def create_token(self, new: NewToken, who: str) -> CreatedToken:
        """See `AccessControl.create_token`."""
        return CreatedToken(*self._tokens.create(new, who, self._clock()))

    def revoke_token(self, id: str) -> None:
        """See `AccessControl.revoke_token`."""
        if not self._tokens.revoke(id):
            raise NotFound(f"no token {id!r}; `meshd token ls` lists them")

    def record(self, caller: Identity, method: str, path: str, status: int, detail: str) -> None:
        """See `AccessControl.record`."""
        entry = AuditEntry(
            id=0,
            at=self._clock(),
            who=caller.who,
            role=Role(caller.role),
            source=caller.source,
            method=method,
            path=path,
            status=status,
            detail=detail,
        )
        try:
            self._audit.record(entry)
        except StoreWriteError as error:
            _log.warning("audit entry is lost", entry=str(entry), reason=str(error))

    def audit(self, before: int, limit: int) -> Sequence[AuditEntry]:
        """See `AccessControl.audit`."""
        return self._audit.before(before, limit)
