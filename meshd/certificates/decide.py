"""When to order a certificate, when to try again, and when to warn. Pure.

Called by `manager` with frozen values, the time, and numbers of `[0, 1)` drawn by it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Final, Literal

import msgspec

from meshd.certificates.values import (
    AuthorityAccess,
    FailureCause,
    HeldCertificate,
    OrderFailed,
    OrderRecord,
    WantedCertificate,
)
from meshd.model.certificate import CertificateStatus
from meshd.spec.model import Service
from meshd.spec.model.acme import ChallengeType

RENEWAL_SHARE: Final = 2 / 3
"""Share of the lifetime after which a certificate is renewed: the usual one, so that 30 of 90 days
are left."""
RENEWAL_SPREAD: Final = 0.02
"""Share of the lifetime over which renewals spread around that: certificates ordered together are
not renewed together."""
SERIAL_STEPS: Final = 1 << 32
"""Steps of the number in `[0, 1)` that a serial number gives."""
RETRY_SPREAD: Final = 0.2
"""Share by which a wait is longer at random, so that retries of many names do not coincide."""
LONGEST_RETRY_AFTER: Final = 7 * 86400.0
"""Seconds; the longest period of Let's Encrypt's limits is a week. Longer waits are cut."""
WARNING_SHARE: Final = 0.2
"""Share of the lifetime that is left at the first warning: 18 of 90 days, 12 after the renewal
was due."""
EARLIEST_WARNING: Final = 21 * 86400.0
"""Seconds; no warning is earlier, also for certificates of a year."""
URGENT_SHARE: Final = 0.25
"""Share of the time from the first warning to the end that is left at the second one."""
WINDOW_PERIOD: Final = 6 * 3600.0
"""Seconds between two questions for renewal information if the authority does not say (RFC 9773,
4.3.2)."""
SHORTEST_WINDOW_PERIOD: Final = 60.0  # a minute
LONGEST_WINDOW_PERIOD: Final = 86400.0
"""Seconds; bounds of what the authority asks for (RFC 9773, 4.3.2)."""

BACK_OFF: Final[Mapping[FailureCause, tuple[float, float]]] = {
    # Let's Encrypt allows five failed validations per account, name and hour: attempts after 5, 15
    # and 35 minutes are four in the first hour.
    FailureCause.VALIDATION: (300.0, 6 * 3600.0),
    FailureCause.RATE_LIMITED: (3600.0, 86400.0),
    FailureCause.REFUSED: (600.0, 12 * 3600.0),
    FailureCause.UNREACHABLE: (30.0, 1800.0),
    FailureCause.ACCOUNT_LOST: (5.0, 3600.0),
    FailureCause.PROXY: (10.0, 300.0),
}
"""Seconds of the first wait after a failure, and of the longest: each wait is twice the one before
for the same cause.
Failures of an authority that does not answer count in no limit, so they are retried sooner."""


class ExpiryWarning(IntEnum):
    """How urgent the renewal of a certificate is."""

    NONE = 0
    SOON = 1
    URGENT = 2
    EXPIRED = 3


def find_route_hosts(services: Iterable[Service]) -> frozenset[str]:
    """Return the hosts of routes with `tls: auto`."""
    return frozenset(
        route.host for service in services for route in service.mesh.routes if route.tls == "auto"
    )


def list_wanted(
    domains: Sequence[WantedCertificate],
    hosts: Collection[str],
    default: tuple[AuthorityAccess, tuple[ChallengeType, ...]] | None,
) -> tuple[WantedCertificate, ...]:
    """Return the certificates to hold, each name once, in a fixed order: those in the settings, and
    those for `hosts` of routes from the `default` authority."""
    wanted = {each.name: each for each in reversed(domains)}
    if default is not None:
        for host in hosts:
            wanted.setdefault(host, WantedCertificate(host, *default))
    return tuple(wanted[name] for name in sorted(wanted))


def renewal_time(held: HeldCertificate, record: OrderRecord) -> float:
    """Return when to renew a certificate: at a point of the authority's window, or around two
    thirds of the lifetime. The point follows from the serial number, so it stays the same."""
    point = held.serial % SERIAL_STEPS / SERIAL_STEPS
    window = record.window
    if window is not None and window.end and window.renewal_id == held.renewal_id:
        return window.start + point * (window.end - window.start)
    lifetime = held.not_after - held.not_before
    return held.not_before + lifetime * (RENEWAL_SHARE + RENEWAL_SPREAD * (point - 0.5))


def order_time(held: HeldCertificate | None, record: OrderRecord, pause_until: float) -> float:
    """Return when to order a certificate for a name. `pause_until`: no order at the authority
    before this time."""
    due = renewal_time(held, record) if held is not None else 0.0
    return max(due, record.retry_at, pause_until)


def asks_for_window(held: HeldCertificate, record: OrderRecord, now: float) -> bool:
    """Whether to ask the authority when to renew; not after the certificate has expired."""
    if not held.renewal_id or now >= held.not_after:
        return False
    window = record.window
    return window is None or window.renewal_id != held.renewal_id or now >= window.check_at


def next_window_check(retry_after: float, now: float) -> float:
    """Return when to ask again, for the authority's Retry-After in seconds (0: none)."""
    period = retry_after or WINDOW_PERIOD
    return now + min(max(period, SHORTEST_WINDOW_PERIOD), LONGEST_WINDOW_PERIOD)


def wait_after(cause: FailureCause, failures: int, retry_after: float, point: float) -> float:
    """Return the seconds to wait after the given number of failures of one cause. `retry_after` is
    what the authority asks for (0: nothing), `point` a random number in `[0, 1)`."""
    first, longest = BACK_OFF[cause]
    doubled = first * 2.0 ** min(max(failures - 1, 0), 20)
    wait = max(min(doubled, longest), min(retry_after, LONGEST_RETRY_AFTER))
    return wait * (1.0 + RETRY_SPREAD * point)


def after_failure(
    record: OrderRecord, failed: OrderFailed, now: float, point: float
) -> OrderRecord:
    """Return the record after a failed attempt. Each cause has its own number of failures since the
    last success: an outage must not delay the validation after it by hours, and one between failed
    validations must not bring them closer together than the authority's limit."""
    alike = record.causes.get(failed.cause, 0) + 1
    return msgspec.structs.replace(
        record,
        failures=record.failures + 1,
        failed_at=now,
        error=str(failed),
        retry_at=now + wait_after(failed.cause, alike, failed.retry_after, point),
        causes={**record.causes, failed.cause.value: alike},
    )


def choose_challenge(
    allowed: Sequence[ChallengeType], offered: Collection[str], failures: int
) -> ChallengeType | None:
    """Return the type of validation to try; None if the authority offers none that is allowed.
    After a failure it is the next one: one port may be blocked where the other one is not."""
    possible = [each for each in allowed if each in offered]
    return possible[failures % len(possible)] if possible else None


def expiry_warning(not_before: float, not_after: float, now: float) -> ExpiryWarning:
    """Return how urgent the renewal is. A certificate that is renewed on time never has a
    warning."""
    period = min((not_after - not_before) * WARNING_SHARE, EARLIEST_WARNING)
    left = not_after - now
    if left <= 0:
        return ExpiryWarning.EXPIRED
    if left <= period * URGENT_SHARE:
        return ExpiryWarning.URGENT
    return ExpiryWarning.SOON if left <= period else ExpiryWarning.NONE


def describe_wanted(
    wanted: WantedCertificate,
    held: HeldCertificate | None,
    record: OrderRecord,
    pause: OrderRecord,
    now: float,
) -> CertificateStatus:
    """Return what users see of one name. `pause` is the record of the authority itself."""
    due = order_time(held, record, 0.0)
    failing = pause if pause.failures and not record.failures and due <= now else record
    state: Literal["valid", "expired", "pending", "failing"] = "valid"
    if held is None:
        state = "failing" if failing.failures else "pending"
    elif now >= held.not_after:
        state = "expired"
    elif failing.failures:
        state = "failing"
    return CertificateStatus(
        names=held.names if held else (wanted.name,),
        source="acme",
        origin=wanted.authority.directory,
        state=state,
        expires_at=held.not_after if held else 0.0,
        renew_at=renewal_time(held, record) if held else 0.0,
        retry_at=max(due, pause.retry_at) if failing.failures else 0.0,
        failures=failing.failures,
        error=failing.error,
    )
