"""Allow lists compared with the callers: the audit, and the suggested lists."""

from pathlib import Path

from meshd.control.access_policy import (
    UncoveredCaller,
    service_policies,
    suggest_allow_lists,
    uncovered_callers,
)
from meshd.model.scaling import CallerSeen
from meshd.spec.compose import load
from meshd.spec.model import Mesh, Service
from meshd.store.calls import LIFE, PERIOD, CallLog
from meshd.store.store import Store

SERVICES = (
    Service(name="payments", mesh=Mesh(allow=("orders", "bank/ledger"))),
    Service(name="menu", mesh=Mesh(allow=("web",), audit=True)),
    Service(name="web"),
    Service(name="null"),
)


def seen(caller: str, calls: int, uncovered: int = 0) -> CallerSeen:
    return CallerSeen(caller, calls, uncovered, 100.0, 200.0)


SEEN = {
    "payments": [seen("shop/orders", 7), seen("shop/snoop", 0, 3), seen("bank/ledger", 1)],
    "menu": [seen("shop/web", 5), seen("shop/123", 4, 4), seen("unknown", 2, 2)],
    "null": [seen("shop/web", 9)],
}
FOUND = service_policies("shop", SERVICES, SEEN)


def test_the_audit_lists_callers_that_are_not_covered() -> None:
    assert uncovered_callers(FOUND) == [
        UncoveredCaller("payments", "shop/snoop", 0, 3, 200.0, refused=True),
        UncoveredCaller("menu", "shop/123", 4, 4, 200.0, refused=False),
        UncoveredCaller("menu", "unknown", 2, 2, 200.0, refused=False),
    ]
    covered = [Service(name="menu", mesh=Mesh(allow=("web", "123", "unknown/x"), audit=True))]
    assert [o.caller for o in uncovered_callers(service_policies("shop", covered, SEEN))] == [
        "unknown"
    ]


def test_suggested_allow_lists() -> None:
    text = suggest_allow_lists("shop", FOUND, lambda at: f"<{at:g}>")
    assert text == (
        "# Made from 28 calls between the services of shop since <100>.\n"
        "# Services that made no call in this time are missing. Review the lists before use.\n"
        "services:\n"
        "  payments:\n"
        "    x-mesh:\n"
        "      allow: [orders, bank/ledger]\n"
        "      # 3 calls of shop/snoop were refused\n"
        "  menu:\n"
        "    x-mesh:\n"
        '      allow: [web, "123"]\n'
        "      # 4 calls of unknown callers\n"
        "  web:\n"
        "    x-mesh:\n"
        "      allow: []  # no calls\n"
        '  "null":\n'
        "    x-mesh:\n"
        "      allow: [web]\n"
    )


def test_suggested_allow_lists_merge_over_the_project_file(tmp_path: Path) -> None:
    own, more = tmp_path / "compose.yml", tmp_path / "allow.yml"
    names = ("payments", "menu", "web", '"null"', "orders", "snoop", '"123"')
    body = "".join(f"  {name}: {{image: x}}\n" for name in names)
    own.write_text(f"name: shop\nservices:\n{body}")
    more.write_text(suggest_allow_lists("shop", FOUND, str))
    loaded = load([own, more], environment={}).project
    allowed = {service.name: service.mesh.allow for service in loaded.services}
    assert allowed["payments"] == ("orders", "bank/ledger")
    assert allowed["menu"] == ("web", "123")
    assert allowed["web"] == ()
    assert allowed["orders"] is None


def test_calls_are_kept_over_restarts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    totals = {"shop/menu": ({"shop/web": 3}, {"shop/snoop": 1})}
    log = CallLog(store, lambda: totals)
    log.step(1000.0)
    totals["shop/menu"] = ({"shop/web": 5}, {"shop/snoop": 1})
    log.step(1000.0 + PERIOD / 2)  # not yet
    log.step(1000.0 + PERIOD)
    store.close()

    store.open()
    totals.clear()
    totals["shop/menu"] = ({"shop/web": 2}, {})  # the workers' totals start again at zero
    log = CallLog(store, lambda: totals)
    web = CallerSeen("shop/web", 7, 0, 1000.0, 2000.0)
    snoop = CallerSeen("shop/snoop", 0, 1, 1000.0, 1000.0)
    assert log.of("shop", 2000.0) == {"menu": [snoop, web]}
    assert log.of("bank", 2000.0) == {}
    totals["shop/menu"] = ({"shop/web": 3}, {})
    assert list(log.of("shop", 1500.0 + LIFE)) == ["menu"]
    assert [by.caller for by in log.of("shop", 1500.0 + LIFE)["menu"]] == ["shop/web"]
    store.close()
