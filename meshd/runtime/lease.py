"""Which of several control processes leads: states, decisions and times of a lease. Pure.

`meshd.daemon.leadership` carries the decisions out, on a lease that the runtime keeps. The clocks
of two hosts are never compared: a process that stands by takes the lease when it has not seen it
change for `DURATION`, by its own clock. The leader acts for a shorter time after its last renewal,
so that it has stopped by then, whether it knows of the other one or not.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec

DURATION: Final = 3.0
"""Seconds without a renewal after which another process may take the lease. With the start of the
new leader, a hand-over takes less than 5 s."""
MARGIN: Final = 1.0
"""Seconds by which the leader stops acting earlier: for a change that is still under way then."""
RENEW_PAUSE: Final = 0.5
"""Seconds between two renewals, and between two looks at the lease of another process: several fit
into the time for which a renewal counts."""


class LeaseState(StrEnum):
    """State of a control process with regard to the lease."""

    STANDBY = "standby"
    """Another process leads, or may still lead."""
    LEADING = "leading"
    """It holds the lease. It may act as long as the last renewal counts."""
    LOST = "lost"
    """Another process took the lease; this one ends, and stands by after its restart."""


LEASE_TRANSITIONS: Final[Mapping[LeaseState, tuple[LeaseState, ...]]] = MappingProxyType(
    {
        LeaseState.STANDBY: (LeaseState.LEADING,),
        LeaseState.LEADING: (LeaseState.LOST,),
        LeaseState.LOST: (),
    }
)
"""The states that can follow each state."""


class LeaseAction(StrEnum):
    """What a process does about the lease next."""

    WAIT = "wait"
    CREATE = "create"
    """Lead with its own state: there is no other one."""
    TAKE = "take"
    """Lead with the state of the leader before, and with the next token."""
    RENEW = "renew"
    """Lead with its own state and the same token."""
    STOP = "stop"


class LeaseRecord(msgspec.Struct, frozen=True):
    """The lease as the runtime keeps it.

    - `holder`: id of the process that leads; empty: it was released.
    - `host`: its host, for people.
    - `token`: grows with each new leader, the fencing token.
    - `renewals`: grows with each renewal.
    - `records`: where the runtime keeps the leader's state; empty: nowhere yet.
    - `version`: of the object on the runtime; a write names the version that it replaces.
    - `address`: where the leader feeds the proxies of other nodes, set by the runtime; empty:
      nowhere.
    """

    holder: str
    host: str
    token: int = 0
    renewals: int = 0
    records: str = ""
    version: int = 0
    address: str = ""


def decide(
    state: LeaseState, me: str, token: int, found: LeaseRecord | None, unchanged: float
) -> LeaseAction:
    """Return what a process does about the lease.

    - `me`: its id; `token`: the one with which it leads. While it stands by: the one up to which
      its own state is current; 0: none.
    - `found`: the lease as it is now; None: there is none yet.
    - `unchanged`: seconds for which this process has seen the lease as it is now.
    """
    if state is LeaseState.LEADING:
        ours = found is not None and (found.holder, found.token) == (me, token)
        return LeaseAction.RENEW if ours else LeaseAction.STOP
    if state is LeaseState.LOST:
        return LeaseAction.STOP
    if found is None:
        return LeaseAction.CREATE
    if found.holder == me and found.token <= token:
        return LeaseAction.RENEW  # a process that led was started again: its state is the newest
    if not found.holder or unchanged >= DURATION:
        return LeaseAction.TAKE
    return LeaseAction.WAIT


def remaining(renewed_at: float, now: float) -> float:
    """Return for how many more seconds the leader may act, at most 0 if it may not. `renewed_at`:
    when the last renewal that succeeded was sent."""
    return DURATION - MARGIN - (now - renewed_at)


def next_record(
    found: LeaseRecord | None, action: LeaseAction, me: str, host: str, records: str = ""
) -> LeaseRecord:
    """Return the lease that a process writes to CREATE, TAKE or RENEW it. `records`: where its
    state is now; empty: as before."""
    if found is None:
        return LeaseRecord(me, host, 1, 0, records)
    return LeaseRecord(
        holder=me,
        host=host,
        token=found.token + (action is LeaseAction.TAKE),
        renewals=found.renewals + 1,
        records=records or found.records,
        version=found.version,
    )
