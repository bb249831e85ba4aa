"""Allow lists held against who called: the audit, and the proposal."""

from pathlib import Path

from meshd.control.access_policy import Outside, outside, policies, suggestion
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
FOUND = policies("shop", SERVICES, SEEN)


def test_the_audit_lists_who_is_not_covered_now() -> None:
    assert outside(FOUND) == [
        Outside("payments", "shop/snoop", 0, 3, 200.0, refused=True),
        Outside("menu", "shop/123", 4, 4, 200.0, refused=False),
        Outside("menu", "unknown", 2, 2, 200.0, refused=False),
    ]
    covered = [Service(name="menu", mesh=Mesh(allow=("web", "123", "unknown/x"), audit=True))]
    assert [o.caller for o in outside(policies("shop", covered, SEEN))] == ["unknown"]


def test_the_proposal() -> None:
    text = suggestion("shop", FOUND, lambda at: f"<{at:g}>")
    assert text == (
        "# Made from 28 calls between the services of shop since <100>.\n"
        "# Who has not called for as long is not in it: look through it before it is enforced.\n"
        "services:\n"
        "  payments:\n"
        "    x-mesh:\n"
        "      allow: [orders, bank/ledger]\n"
        "      # 3 calls of shop/snoop were refused\n"
        "  menu:\n"
        "    x-mesh:\n"
        '      allow: [web, "123"]\n'
        "      # 4 calls of somebody unknown\n"
        "  web:\n"
        "    x-mesh:\n"
        "      allow: []  # nobody called it\n"
        '  "null":\n'
        "    x-mesh:\n"
        "      allow: [web]\n"
    )


def test_the_proposal_merges_over_the_own_file(tmp_path: Path) -> None:
    own, more = tmp_path / "compose.yml", tmp_path / "allow.yml"
    names = ("payments", "menu", "web", '"null"', "orders", "snoop", '"123"')
    body = "".join(f"  {name}: {{image: x}}\n" for name in names)
    own.write_text(f"name: shop\nservices:\n{body}")
    more.write_text(suggestion("shop", FOUND, str))
    loaded = load([own, more], environment={}).project
    allowed = {service.name: service.mesh.allow for service in loaded.services}
    assert allowed["payments"] == ("orders", "bank/ledger")
    assert allowed["menu"] == ("web", "123")
    assert allowed["web"] == ()
    assert allowed["orders"] is None


def test_calls_are_kept_over_restarts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    told = {"shop/menu": ({"shop/web": 3}, {"shop/snoop": 1})}
    log = CallLog(store, lambda: told)
    log.step(1000.0)
    told["shop/menu"] = ({"shop/web": 5}, {"shop/snoop": 1})
    log.step(1000.0 + PERIOD / 2)  # not yet
    log.step(1000.0 + PERIOD)
    store.close()

    store.open()
    told.clear()
    told["shop/menu"] = ({"shop/web": 2}, {})  # the workers' totals began anew
    log = CallLog(store, lambda: told)
    web = CallerSeen("shop/web", 7, 0, 1000.0, 2000.0)
    snoop = CallerSeen("shop/snoop", 0, 1, 1000.0, 1000.0)
    assert log.of("shop", 2000.0) == {"menu": [snoop, web]}
    assert log.of("bank", 2000.0) == {}
    told["shop/menu"] = ({"shop/web": 3}, {})
    assert list(log.of("shop", 1500.0 + LIFE)) == ["menu"]
    assert [by.caller for by in log.of("shop", 1500.0 + LIFE)["menu"]] == ["shop/web"]
    store.close()
