"""Records of the flight recorder in the state directory: read as saved, and bounded."""

import gzip
from pathlib import Path

import msgspec
import pytest

from meshd.model.errors import NotFound, StoreWriteError
from meshd.store.flight_records import RECORDS_KEPT, FlightRecords
from proxy.observe.flight import RecordOrder
from tests.fakes.record_control import flight

NOON = 1_750_000_000.0


def test_the_files_of_all_workers_are_read_in_order(tmp_path: Path) -> None:
    records = FlightRecords(tmp_path)
    assert records.list() == []
    made = records.create(RecordOrder(NOON, "shop/web", "slow"))
    assert made.id == "20250615-150640-shop_web"
    folder = tmp_path / "records" / made.id
    assert folder.stat().st_mode & 0o777 == 0o700
    early, late = flight("/early"), flight("/late")
    late.request.time = 2000.0
    for worker, each in enumerate((late, early)):
        line = msgspec.json.encode(each) + b"\nnonsense\n"
        (folder / f"worker-{worker}.jsonl.gz").write_bytes(gzip.compress(line))
    (folder / "worker-9.jsonl.gz").write_bytes(b"not gzip")
    assert records.read(made.id) == [early, late]
    (info,) = records.list()
    assert (info.workers, info.service, info.reason) == (3, "shop/web", "slow")


def test_the_number_of_records_is_bounded(tmp_path: Path) -> None:
    records = FlightRecords(tmp_path)
    for number in range(RECORDS_KEPT + 3):
        records.create(RecordOrder(NOON + number))
    found = records.list()
    assert len(found) == RECORDS_KEPT
    assert (found[0].at, found[-1].at) == (NOON + RECORDS_KEPT + 2, NOON + 3)
    again = records.create(RecordOrder(NOON + RECORDS_KEPT + 2))
    assert again.id.endswith("-all-2")


@pytest.mark.parametrize("id", ["", "..", "../meshd.db", ".hidden", "a/b", "x" * 300, "unknown"])
def test_other_names_are_not_found(tmp_path: Path, id: str) -> None:
    with pytest.raises(NotFound):
        FlightRecords(tmp_path).read(id)


def test_a_state_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("a file")
    with pytest.raises(StoreWriteError):
        FlightRecords(tmp_path).create(RecordOrder(NOON))
