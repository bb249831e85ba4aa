"""When to order, retry and warn."""

import msgspec
import pytest

from meshd.certificates import decide
from meshd.certificates.decide import BACK_OFF, ExpiryWarning
from meshd.certificates.values import (
    AuthorityAccess,
    FailureCause,
    HeldCertificate,
    OrderFailed,
    OrderRecord,
    RenewalWindow,
    WantedCertificate,
)
from meshd.spec.model import Mesh, RouteSpec, Service

DAY = 86400.0
HTTP, ALPN = "http-01", "tls-alpn-01"
ACCESS = AuthorityAccess("https://ca.example/dir")
MIDDLE = decide.SERIAL_STEPS // 2


def held(days: float = 90, serial: int = MIDDLE, id: str = "x.y") -> HeldCertificate:
    return HeldCertificate(("a.test",), 0.0, days * DAY, "/a.pem", "v", serial, id)


@pytest.mark.parametrize(
    ("days", "serial", "expected"),
    [
        (90, MIDDLE, 60.0),
        (90, 0, 59.1),
        (90, decide.SERIAL_STEPS - 1, 60.9),
        (6, MIDDLE, 4.0),
    ],
)
def test_a_certificate_is_renewed_around_two_thirds_of_its_life(
    days: float, serial: int, expected: float
) -> None:
    assert decide.renewal_time(held(days, serial), OrderRecord()) / DAY == pytest.approx(expected)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (RenewalWindow("x.y", 10 * DAY, 20 * DAY), 15.0),
        (RenewalWindow("other", 10 * DAY, 20 * DAY), 60.0),
        (RenewalWindow("x.y"), 60.0),
    ],
    ids=["of this certificate", "of the one before", "none is suggested"],
)
def test_the_window_of_the_authority_counts_first(window: RenewalWindow, expected: float) -> None:
    found = decide.renewal_time(held(), OrderRecord(window=window))
    assert found / DAY == pytest.approx(expected)


@pytest.mark.parametrize(
    ("certificate", "record", "pause", "expected"),
    [
        (None, OrderRecord(), 0.0, 0.0),
        (None, OrderRecord(retry_at=50.0), 0.0, 50.0),
        (None, OrderRecord(retry_at=50.0), 70.0, 70.0),
        (held(), OrderRecord(), 0.0, 60 * DAY),
        (held(), OrderRecord(retry_at=61 * DAY), 0.0, 61 * DAY),
    ],
)
def test_an_order_waits_for_its_time_and_for_every_back_off(
    certificate: HeldCertificate | None, record: OrderRecord, pause: float, expected: float
) -> None:
    assert decide.order_time(certificate, record, pause) == pytest.approx(expected)


def test_failed_validations_stay_below_five_an_hour() -> None:
    at, attempts = 0.0, [0.0]
    for failures in range(1, 12):
        at += decide.wait_after(FailureCause.VALIDATION, failures, 0.0, 0.0)
        attempts.append(at)
    for start in attempts:
        assert sum(start <= each < start + 3600 for each in attempts) < 5


@pytest.mark.parametrize("cause", list(FailureCause))
def test_waits_grow_up_to_a_limit(cause: FailureCause) -> None:
    first, longest = BACK_OFF[cause]
    waits = [decide.wait_after(cause, number, 0.0, 0.0) for number in range(1, 40)]
    assert waits[0] == first
    assert waits == sorted(waits)
    assert waits[-1] == longest
    assert decide.wait_after(cause, 1, 0.0, 0.999) > first


@pytest.mark.parametrize(
    ("asked", "expected"), [(0.0, 3600.0), (60.0, 3600.0), (7200.0, 7200.0), (1e9, 7 * DAY)]
)
def test_retry_after_is_respected(asked: float, expected: float) -> None:
    assert decide.wait_after(FailureCause.RATE_LIMITED, 1, asked, 0.0) == expected


def test_a_failure_is_remembered() -> None:
    failed = OrderFailed(FailureCause.UNREACHABLE, "away")
    before = OrderRecord(failures=1, warned=2, causes={"unreachable": 1})
    after = decide.after_failure(before, failed, 1000.0, 0.0)
    assert after == OrderRecord(2, 1000.0, "away", 1060.0, None, 2, {"unreachable": 2})


V, U, R = FailureCause.VALIDATION, FailureCause.UNREACHABLE, FailureCause.RATE_LIMITED


@pytest.mark.parametrize(
    ("causes", "waits"),
    [
        ([U, U, U, U, U, U, V], [30, 60, 120, 240, 480, 960, 300]),
        ([V, V, V, V, U], [300, 600, 1200, 2400, 30]),
        # What lies between two failed validations does not bring the next ones closer together.
        ([V, U, V, U, V, U, V], [300, 30, 600, 60, 1200, 120, 2400]),
        ([V, R, V], [300, 3600, 600]),
    ],
)
def test_each_cause_has_its_own_waits(causes: list[FailureCause], waits: list[int]) -> None:
    record, found = OrderRecord(), []
    for cause in causes:
        record = decide.after_failure(record, OrderFailed(cause, "no"), 1000.0, 0.0)
        found.append(record.retry_at - 1000.0)
    assert found == waits
    assert record.failures == len(causes)


def test_a_record_of_an_earlier_version_is_read() -> None:
    stored = b'{"failures":6,"failed_at":1.0,"retry_at":2.0,"window":null,"warned":1}'
    record = msgspec.json.decode(stored, type=OrderRecord)
    after = decide.after_failure(record, OrderFailed(V, "no"), 1000.0, 0.0)
    assert (after.failures, after.retry_at, after.warned) == (7, 1300.0, 1)


@pytest.mark.parametrize(
    ("allowed", "offered", "failures", "expected"),
    [
        ((HTTP, ALPN), {HTTP, ALPN, "dns-01"}, 0, HTTP),
        ((HTTP, ALPN), {HTTP, ALPN}, 1, ALPN),
        ((HTTP, ALPN), {HTTP, ALPN}, 2, HTTP),
        ((HTTP, ALPN), {ALPN}, 2, ALPN),
        ((ALPN,), {HTTP}, 0, None),
    ],
)
def test_the_type_of_validation_alternates(
    allowed: tuple[str, ...], offered: set[str], failures: int, expected: str | None
) -> None:
    assert decide.choose_challenge(allowed, offered, failures) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("days", "left", "expected"),
    [
        (90, 30, ExpiryWarning.NONE),
        (90, 17.9, ExpiryWarning.SOON),
        (90, 4.4, ExpiryWarning.URGENT),
        (90, 0, ExpiryWarning.EXPIRED),
        (365, 22, ExpiryWarning.NONE),
        (365, 20.9, ExpiryWarning.SOON),
    ],
)
def test_warnings_come_before_the_end(days: float, left: float, expected: ExpiryWarning) -> None:
    assert decide.expiry_warning(0.0, days * DAY, (days - left) * DAY) is expected


@pytest.mark.parametrize(
    ("window", "now", "id", "expected"),
    [
        (None, 0.0, "x.y", True),
        (RenewalWindow("x.y", check_at=100.0), 99.0, "x.y", False),
        (RenewalWindow("x.y", check_at=100.0), 100.0, "x.y", True),
        (RenewalWindow("other", check_at=100.0), 0.0, "x.y", True),
        (None, 0.0, "", False),
        (None, 90 * DAY, "x.y", False),
    ],
)
def test_the_authority_is_asked_for_a_window_at_its_times(
    window: RenewalWindow | None, now: float, id: str, expected: bool
) -> None:
    assert decide.asks_for_window(held(id=id), OrderRecord(window=window), now) is expected


@pytest.mark.parametrize(
    ("asked", "expected"), [(0.0, 6 * 3600.0), (1.0, 60.0), (7200.0, 7200.0), (1e9, DAY)]
)
def test_the_next_question_is_within_bounds(asked: float, expected: float) -> None:
    assert decide.next_window_check(asked, 5.0) == 5.0 + expected


def test_settings_and_routes_name_the_hosts() -> None:
    routes = (
        RouteSpec(host="shop.test", tls="auto"),
        RouteSpec(host="shop.test", path="/api", tls="auto"),
        RouteSpec(host="plain.test"),
    )
    service = Service(name="web", mesh=Mesh(routes=routes))
    hosts = decide.find_route_hosts([service])
    assert hosts == {"shop.test"}
    other = AuthorityAccess("https://other.example/dir")
    named = WantedCertificate("a.test", other, (ALPN,))
    wanted = decide.list_wanted([named], {"shop.test", "a.test"}, (ACCESS, (HTTP,)))
    assert wanted == (named, WantedCertificate("shop.test", ACCESS, (HTTP,)))
    assert decide.list_wanted([named], hosts, None) == (named,)


@pytest.mark.parametrize(
    ("certificate", "record", "pause", "state", "error"),
    [
        (None, OrderRecord(), OrderRecord(), "pending", ""),
        (None, OrderRecord(1, retry_at=9.0, error="bad"), OrderRecord(), "failing", "bad"),
        (None, OrderRecord(), OrderRecord(1, retry_at=9.0, error="away"), "failing", "away"),
        (held(), OrderRecord(), OrderRecord(1, retry_at=9.0, error="away"), "valid", ""),
        (held(), OrderRecord(2, retry_at=9.0, error="bad"), OrderRecord(), "failing", "bad"),
        (held(1), OrderRecord(2, retry_at=9.0, error="bad"), OrderRecord(), "expired", "bad"),
    ],
)
def test_users_see_the_state_of_each_name(
    certificate: HeldCertificate | None,
    record: OrderRecord,
    pause: OrderRecord,
    state: str,
    error: str,
) -> None:
    wanted = WantedCertificate("a.test", ACCESS, (HTTP,))
    status = decide.describe_wanted(wanted, certificate, record, pause, 10 * DAY)
    assert (status.names, status.state, status.error) == (("a.test",), state, error)
    assert bool(status.retry_at) == bool(error)
