"""An `AccessControl` in memory. A test puts in tokens; `entries` has what was recorded."""

from collections.abc import Sequence

from meshd.model.access import AuditEntry, CreatedToken, Identity, NewToken, Role, Token
from meshd.model.errors import NotFound


class FakeAccessControl:
    """`secrets` has the tokens by their secret."""

    def __init__(self) -> None:
        self.secrets: dict[str, Token] = {}
        self.entries: list[AuditEntry] = []

    def add(self, role: Role, project: str = "") -> str:
        """Add a token; return its secret."""
        new = NewToken(f"{role}-{project}", role, project)
        return self.create_token(new, "test").secret

    def authenticate(self, secret: str) -> Token | None:
        return self.secrets.get(secret)

    def tokens(self) -> Sequence[Token]:
        return list(self.secrets.values())

    def create_token(self, new: NewToken, who: str) -> CreatedToken:
        number = len(self.secrets) + 1
        token = Token(f"t{number}", new.name, new.role, new.project, 1.0, 0.0, who)
        secret = f"meshd_t{number}_{number:043d}"
        self.secrets[secret] = token
        return CreatedToken(secret, token)

    def revoke_token(self, id: str) -> None:
        for secret, token in self.secrets.items():
            if token.id == id:
                del self.secrets[secret]
                return
        raise NotFound(f"no token {id!r}")

    def record(self, caller: Identity, method: str, path: str, status: int, detail: str) -> None:
        number = len(self.entries) + 1
        self.entries.append(
            AuditEntry(
                number, 1.0, caller.who, caller.role, caller.source, method, path, status, detail
            )
        )

    def audit(self, before: int, limit: int) -> Sequence[AuditEntry]:
        found = [entry for entry in self.entries if not before or entry.id < before]
        return found[::-1][:limit]
