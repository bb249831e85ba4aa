"""Tokens and the audit log on disk: no secret is stored, and both are bounded."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.control.access import AccessManager
from meshd.model.access import Identity, NewToken, Role
from meshd.model.errors import NotFound, Rejected
from meshd.store import audit as audit_module
from meshd.store import tokens as tokens_module
from meshd.store.audit import AuditLog
from meshd.store.store import Store
from meshd.store.tokens import TokenTable
from tests.support.stores import open_store


class Access:
    """An `AccessManager` whose time a test sets."""

    def __init__(self, store: Store) -> None:
        self.now = 1000.0
        self.store = store
        self.manager = AccessManager(TokenTable(store), AuditLog(store), lambda: self.now)


@pytest.fixture
def access(tmp_path: Path) -> Iterator[Access]:
    store = open_store(tmp_path)
    yield Access(store)
    store.close()


def test_a_token_is_found_by_its_whole_secret_only(access: Access, tmp_path: Path) -> None:
    made = access.manager.create_token(NewToken("laptop", Role.OPERATE, "shop"), "ann")
    other = access.manager.create_token(NewToken("ci"), "ann")
    prefix, id, secret = made.secret.split("_", 2)
    assert (prefix, id, len(secret)) == ("meshd", made.token.id, 43)
    assert access.manager.authenticate(made.secret) == made.token
    assert made.token in access.manager.tokens()
    wrong = ["", "meshd", f"meshd_{id}", f"meshd_{id}_", made.secret[:-1], f"{made.secret}x"]
    wrong += [f"meshd_{other.token.id}_{secret}", made.secret.upper(), "meshd_a_b"]
    for text in wrong:
        assert access.manager.authenticate(text) is None
    access.store.close()
    stored = b"".join(file.read_bytes() for file in tmp_path.glob("meshd.db*"))
    assert secret.encode() not in stored
    access.store.open()


def test_expired_and_revoked_tokens_are_refused(access: Access) -> None:
    short = access.manager.create_token(NewToken("short", seconds=60.0), "ann")
    long = access.manager.create_token(NewToken("long"), "ann")
    access.now += 59.0
    assert access.manager.authenticate(short.secret) is not None
    access.now += 1.0
    assert access.manager.authenticate(short.secret) is None
    access.now += 1e9
    assert access.manager.authenticate(long.secret) is not None
    access.manager.revoke_token(long.token.id)
    assert access.manager.authenticate(long.secret) is None
    with pytest.raises(NotFound, match="meshd token ls"):
        access.manager.revoke_token(long.token.id)


def test_the_number_of_tokens_is_bounded(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "MAX_TOKENS", 2)
    access.manager.create_token(NewToken("a", seconds=60.0), "ann")
    access.manager.create_token(NewToken("b"), "ann")
    with pytest.raises(Rejected, match="2 tokens exist"):
        access.manager.create_token(NewToken("c"), "ann")
    access.now += 61.0
    access.manager.create_token(NewToken("c"), "ann")
    assert [token.name for token in access.manager.tokens()] == ["b", "c"]


def test_the_audit_log_is_bounded(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "KEPT", 3)
    ann = Identity("ann", Role.ADMIN)
    for number in range(10):
        access.manager.record(ann, "PUT", f"/{number}", 200, "x" * 5000)
    found = access.manager.audit(0, 100)
    assert [entry.path for entry in found] == ["/9", "/8", "/7"]
    assert [entry.path for entry in access.manager.audit(found[0].id, 1)] == ["/8"]
    assert len(found[0].detail) == audit_module.MAX_TEXT
    assert (found[0].who, found[0].role, found[0].source) == ("ann", Role.ADMIN, "socket")


def test_a_state_of_an_earlier_version_has_no_tokens(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "meshd.db")
    database.executescript(Path(__file__).with_name("schema_10.sql").read_text())
    database.close()
    store = open_store(tmp_path)
    manager = AccessManager(TokenTable(store), AuditLog(store), lambda: 1.0)
    assert (manager.tokens(), manager.audit(0, 10)) == ([], [])
    made = manager.create_token(NewToken("a"), "ann")
    assert manager.authenticate(made.secret) == made.token
    store.close()
