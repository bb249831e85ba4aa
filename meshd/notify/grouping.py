"""What is sent to a webhook and when: grouping, repetition, silence. Pure.

`meshd.notify.notifier` keeps one `GroupState` for each target, adds alerts and takes messages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

from meshd.model.silence import Silence
from meshd.notify.topics import Alert
from meshd.spec.model.notify import NotifyTarget

MAX_ALERTS: Final = 50
"""Alerts in a message; further ones are only counted, as chat services cut long messages."""
MAX_KNOWN: Final = 2_000
"""Problems that are remembered as sent; the oldest are forgotten first."""
Problem = tuple[str, str]
"""Topic and subject."""


@dataclass(frozen=True, slots=True)
class GroupState:
    """The alerts of one target.

    - `pending`: alerts to send, the oldest first; `more`: how many did not fit.
    - `since`: when the first of them came (Unix time).
    - `sent_at`: when the last message was taken.
    - `known`: when each problem that was not resolved yet was sent.
    """

    pending: tuple[Alert, ...] = ()
    more: int = 0
    since: float = 0.0
    sent_at: float = -inf
    known: dict[Problem, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """What one request to a webhook says; `more` alerts are left out."""

    alerts: tuple[Alert, ...]
    more: int = 0


def add_alert(state: GroupState, alert: Alert, target: NotifyTarget, now: float) -> GroupState:
    """Return the state with an alert, if the target is to get it.

    A problem that was sent is not sent again before `repeat`. The end of a problem is sent only if
    its begin was; one that ends before its begin was sent leaves no trace.
    """
    if alert.topic not in target.events:
        return state
    problem = (alert.topic, alert.subject)
    waiting = [each for each in state.pending if (each.topic, each.subject) == problem]
    others = tuple(each for each in state.pending if each not in waiting)
    since = state.since if state.pending else now
    if not alert.firing:
        if problem in state.known:
            return replace(state, pending=(*others, alert), since=since)
        return replace(state, pending=others, since=since)
    sent = state.known.get(problem)
    if sent is not None and now - sent < target.repeat and not waiting:
        return state
    if len(others) >= MAX_ALERTS:
        return replace(state, more=state.more + 1)
    return replace(state, pending=(*others, alert), since=since)


def take_message(
    state: GroupState, target: NotifyTarget, silences: Sequence[Silence], now: float
) -> tuple[GroupState, Message | None]:
    """Return the message that is due now, if any, and the state after it.

    Silenced problems are dropped. They are not known, so their end is not sent either.
    """
    due = max(state.since + target.wait, state.sent_at + target.interval)
    if not state.pending or now < due:
        return state, None
    sent = tuple(
        each
        for each in state.pending
        if not any(s.covers(each.topic, each.project, each.service, now) for s in silences)
    )
    known = dict(state.known)
    for each in state.pending:
        known.pop((each.topic, each.subject), None)
    for each in sent:
        if each.firing:
            known[each.topic, each.subject] = now
    while len(known) > MAX_KNOWN:
        del known[next(iter(known))]
    rest = GroupState(sent_at=now if sent else state.sent_at, known=known)
    return rest, Message(sent, state.more) if sent else None
