"""Backups: nothing lost, nothing secret, nothing trusted unseen."""

import hashlib
import io
import os
import sqlite3
import tarfile
import threading
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from meshd.cli.main import main
from meshd.model.rollout import Override, RolloutState
from meshd.store import backup
from meshd.store.events import EventLog
from meshd.store.lock import StateLocked
from meshd.store.schema import MIGRATIONS
from meshd.store.store import Store
from tests.support.stores import filled_store, open_store, shop_project

TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"


def logged(directory: Path) -> Store:
    """A filled store with an event in its log."""
    store = filled_store(directory)
    events = EventLog(store)
    events.open()
    events.record(12.0, "deploy", "deployed", project="shop")
    events.flush()
    return store


def rows(store: Store) -> dict[str, list[tuple[object, ...]]]:
    found = {}
    for (table,) in store.database.execute(TABLES).fetchall():
        kept = store.database.execute(f"SELECT * FROM {table}").fetchall()
        found[table] = sorted((row for row in kept if row[0] != "secret"), key=repr)
    return found


def test_a_restored_state_is_what_was_backed_up(tmp_path: Path) -> None:
    store, file = logged(tmp_path / "a"), tmp_path / "b.tar.gz"
    manifest = backup.back_up(tmp_path / "a", file, 20.0)  # while it is open
    assert (manifest.projects, manifest.instance) == (("shop",), store.instance())
    assert manifest.schema == len(MIGRATIONS)
    assert file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["a", file.name] or set(os.listdir(tmp_path)) == {"a", file.name}
    before, projects, rollouts = rows(store), store.projects, store.rollouts
    store.close()
    backup.restore(file, tmp_path / "c", replace=False)
    again = open_store(tmp_path / "c")
    assert rows(again) == before
    assert (again.projects, again.rollouts) == (projects, rollouts)
    assert (tmp_path / "c" / "meshd.db").stat().st_mode & 0o777 == 0o600
    again.close()


CERTIFICATES = {
    "ca.example-12345678/account.json": b'{"key": "secret"}',
    "ca.example-12345678/orders.json": b"{}",
    "ca.example-12345678/shop.test.pem": b"key and chain",
}


def test_certificates_and_accounts_are_part_of_a_backup(tmp_path: Path) -> None:
    logged(tmp_path / "a").close()
    for name, data in {**CERTIFICATES, "lock": b"", "ca.example-12345678/.new-x": b"half"}.items():
        path = tmp_path / "a" / "certificates" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    backup.back_up(tmp_path / "a", tmp_path / "b.tar.gz", 20.0)
    for state in (tmp_path / "c", tmp_path / "a"):
        backup.restore(tmp_path / "b.tar.gz", state, replace=True)
        folder = state / "certificates"
        found = {str(f.relative_to(folder)): f for f in folder.rglob("*") if f.is_file()}
        assert {name: path.read_bytes() for name, path in found.items()} == CERTIFICATES
        assert {path.stat().st_mode & 0o777 for path in found.values()} == {0o600}
        assert {p.stat().st_mode & 0o777 for p in (folder, *folder.glob("*"))} == {0o700}
    assert (tmp_path / "a" / "certificates.before-restore" / "lock").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"certificates/x/a.pem": b"other"}, "does not match"),
        ({"certificates/../../a.pem": b"x"}, "does not belong to a state"),
    ],
)
def test_a_backup_with_wrong_certificates_is_refused(
    tmp_path: Path, change: dict[str, bytes], message: str
) -> None:
    logged(tmp_path / "a").close()
    (tmp_path / "a" / "certificates" / "x").mkdir(parents=True)
    (tmp_path / "a" / "certificates" / "x" / "a.pem").write_bytes(b"right")
    backup.back_up(tmp_path / "a", tmp_path / "b.tar.gz", 20.0)
    with tarfile.open(tmp_path / "b.tar.gz", "r:gz") as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    manifest = msgspec.json.decode(members["manifest.json"])
    if ".." in next(iter(change)):
        manifest["files"] |= {name: hashlib.sha256(d).hexdigest() for name, d in change.items()}
    changed = members | change | {"manifest.json": msgspec.json.encode(manifest)}
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as archive:
        for name, data in changed.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    with pytest.raises(backup.BadBackup, match=message):
        backup.restore(tmp_path / "bad.tar.gz", tmp_path / "c", replace=False)


def test_a_backup_does_not_contain_the_credentials_key(tmp_path: Path) -> None:
    store, file = logged(tmp_path / "a"), tmp_path / "b.tar.gz"
    backup.back_up(tmp_path / "a", file, 20.0)
    secret = store.secret()
    assert (
        secret
        in (tmp_path / "a" / "meshd.db").read_bytes()
        + (tmp_path / "a" / "meshd.db-wal").read_bytes()
    )
    assert secret not in backup.read(file)[1]
    store.close()
    backup.restore(file, tmp_path / "c", replace=False)
    again = open_store(tmp_path / "c")
    assert again.secret() != secret
    again.close()


def test_a_backup_sees_one_moment_of_a_busy_state(tmp_path: Path) -> None:
    """Each deployment writes a project and its rollout at once: never one without the other."""
    store, enough = open_store(tmp_path / "a"), threading.Event()
    store.deploy(shop_project("web"), {"web": "0"}, "me", "0", 0.0)
    found: list[tuple[str, str]] = []

    def copies() -> None:
        for number in range(5):
            file = tmp_path / f"{number}.tar.gz"
            backup.back_up(tmp_path / "a", file, 0.0)
            backup.restore(file, tmp_path / f"r{number}", replace=False)
            with sqlite3.connect(tmp_path / f"r{number}" / "meshd.db") as database:
                (plan,) = database.execute("SELECT plan FROM project").fetchone()
                (revision,) = database.execute("SELECT revision FROM rollout").fetchone()
            database.close()
            found.append((plan, revision))
        enough.set()

    thread = threading.Thread(target=copies)
    thread.start()
    number = 0
    while not enough.is_set() and thread.is_alive():
        number += 1
        store.deploy(shop_project("web"), {"web": str(number)}, "me", str(number), float(number))
        store.finish("shop/web", RolloutState.DONE, "", float(number))
    thread.join()
    store.close()
    assert len(found) == 5
    assert all(plan == revision for plan, revision in found), found


def test_a_restore_refuses_a_running_daemon_and_an_existing_state(tmp_path: Path) -> None:
    store, file = logged(tmp_path / "a"), tmp_path / "b.tar.gz"
    backup.back_up(tmp_path / "a", file, 20.0)
    with pytest.raises(StateLocked, match=f"process {os.getpid()}"):
        backup.restore(file, tmp_path / "a", replace=True)
    store.set_override("shop/web", Override(9, 0.0))
    store.close()
    with pytest.raises(backup.BackupError, match="--replace"):
        backup.restore(file, tmp_path / "a", replace=False)
    (tmp_path / "a" / "snapshot.bin").write_bytes(b"old")
    backup.restore(file, tmp_path / "a", replace=True)
    again = open_store(tmp_path / "a")
    assert again.overrides["shop/web"].replicas == 4
    again.close()
    assert not (tmp_path / "a" / "snapshot.bin").exists()
    (tmp_path / "a" / "meshd.db").unlink()
    (tmp_path / "a" / "meshd.db.before-restore").rename(tmp_path / "a" / "meshd.db")
    old = open_store(tmp_path / "a")
    assert old.overrides["shop/web"].replicas == 9
    old.close()


def damaged(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def halved(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def exchanged(file: Path) -> None:
    """The database of another backup under this manifest."""
    other = file.with_suffix(".other")
    with tarfile.open(file) as old, tarfile.open(other, "w:gz") as new:
        for entry in old:
            data = old.extractfile(entry)
            assert data is not None
            content = data.read()
            if entry.name == backup.DATABASE:
                content = content[:-1] + b"x"
            backup._add(new, entry.name, content)
    other.replace(file)


def no_archive(file: Path) -> None:
    file.write_text("projects: []")


@pytest.mark.parametrize("spoil", [damaged, halved, exchanged, no_archive])
def test_a_damaged_backup_changes_nothing(tmp_path: Path, spoil: object) -> None:
    store, file = logged(tmp_path / "a"), tmp_path / "b.tar.gz"
    backup.back_up(tmp_path / "a", file, 20.0)
    store.close()
    assert callable(spoil)
    spoil(file)
    with pytest.raises(backup.BadBackup):
        backup.restore(file, tmp_path / "c", replace=False)
    assert not (tmp_path / "c").exists()


def test_a_later_schema_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged(tmp_path / "a").close()
    backup.back_up(tmp_path / "a", tmp_path / "b", 20.0)
    monkeypatch.setattr(backup, "MIGRATIONS", MIGRATIONS[:-1])
    with pytest.raises(backup.BadBackup, match="use that version or a later one"):
        backup.read(tmp_path / "b")


def test_the_commands(tmp_path: Path) -> None:
    logged(tmp_path / "a").close()
    run, file = CliRunner(), str(tmp_path / "b")
    done = run.invoke(main, ["backup", file, "--state", str(tmp_path / "a")])
    assert (done.exit_code, "project shop" in done.output) == (0, True)
    done = run.invoke(main, ["restore", file, "--state", str(tmp_path / "c")])
    assert (done.exit_code, "project shop" in done.output) == (0, True)
    done = run.invoke(main, ["restore", file, "--state", str(tmp_path / "c")])
    assert (done.exit_code, "--replace" in done.output) == (1, True)
    done = run.invoke(main, ["backup", file, "--state", str(tmp_path / "none")])
    assert (done.exit_code, "no state in" in done.output) == (1, True)
    nowhere = str(tmp_path / "none" / "file")
    done = run.invoke(main, ["backup", nowhere, "--state", str(tmp_path / "c")])
    assert done.exit_code == 1
    assert f"no backup was written: directory {tmp_path / 'none'}" in done.output
