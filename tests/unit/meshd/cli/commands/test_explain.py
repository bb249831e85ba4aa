"""The words of `meshd explain`."""

from meshd.api.dto import ReplicaStatus, ServiceStatus
from meshd.cli.commands.explain import summary_lines


def lines(**fields: object) -> str:
    base = {"project": "shop", "name": "db", "desired": 1, "running": 1, "ready": 1}
    values = {**base, "minimum": 1, "maximum": 1, "revision": "r", **fields}
    return "\n".join(summary_lines(ServiceStatus(**values), None))  # type: ignore[arg-type]


def test_open_connections_are_named() -> None:
    assert "60.0 in flight (open connections: 60), p95 unknown." in lines(
        in_flight=60.0, streams=60
    )
    assert "2.0 in flight, p95 unknown." in lines(in_flight=2.0)


def test_replicas_that_are_not_ready_say_why() -> None:
    reason = "connection refused: nothing listens on port 8080"
    phases = ["ready", "probing", "starting", "probing", "probing"]
    new = [
        ReplicaStatus(f"db-{number}", "shop/db", "r", phase, reason=reason)
        for number, phase in enumerate(phases)
    ]
    text = lines(replicas=new)
    named = [f"db-{number} is not ready: {reason}" in text for number in range(5)]
    assert named == [False, True, True, True, False]


def test_replicas_say_why_they_are_on_their_nodes() -> None:
    def replicas(count: int) -> list[ReplicaStatus]:
        return [
            ReplicaStatus(f"db-{n}", "shop/db", "r", "ready", node="w1", placed="less busy")
            for n in range(count)
        ]

    assert lines(replicas=replicas(2)).endswith(
        "\ndb-0 is on w1: less busy\ndb-1 is on w1: less busy"
    )
    assert lines(replicas=replicas(23)).endswith("… and 3 more; `-o json` has all of them.")
    assert "is on" not in lines(replicas=[ReplicaStatus("db-0", "shop/db", "r", "ready")])
