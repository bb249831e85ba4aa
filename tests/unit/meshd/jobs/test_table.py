"""What other parts of the daemon learn about jobs."""

import asyncio
from pathlib import Path

from meshd.jobs.table import JobTable
from meshd.model.runtime import ObservedReplica, ReplicaState
from meshd.store.jobs import JobLog
from meshd.store.store import Store


def test_the_addresses_of_jobs_tell_which_service_calls(tmp_path: Path) -> None:
    store = Store(tmp_path / "meshd.db")
    table = JobTable(store, JobLog(store), asyncio.Event().set)
    assert table.addresses() == {}
    seen = ObservedReplica(
        name="job-1",
        runtime_id="1",
        project="shop",
        service="migrate",
        revision="r1",
        state=ReplicaState.RUNNING,
        managed=True,
        addresses=("172.18.0.5", "172.19.0.5"),
    )
    table.set_containers({"job-1": seen})
    assert table.addresses() == {"172.18.0.5": "shop/migrate", "172.19.0.5": "shop/migrate"}
