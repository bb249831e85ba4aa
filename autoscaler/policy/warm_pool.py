"""How many replicas are worth keeping paused: as many as one burst ordered. Pure.

The policy calls `observe` once a second; `meshd.scaling` stores the size, and `meshd.reconcile`
fills the pool.

A pool is full again within one start-up time, so it needs to hold as many replicas as are ordered
within that time. The largest such burst of the last hours is the size. A paused replica costs only
memory; a missing one costs requests.
"""

from typing import Final

from autoscaler.policy.state import BurstHistory

SPAN: Final = 900.0
"""Seconds of one stretch of time in the history."""
KEPT: Final = 24
"""Stretches that are kept: six hours, so that a rush is remembered until the next part of a day."""


def observe(old: BurstHistory, ordered: int, startup: float, now: float) -> BurstHistory:
    """Return the history with `ordered` more replicas at `now`; a cold start takes `startup`
    seconds."""
    orders = old.orders
    if orders and not now - startup <= orders[0][0] <= now:
        orders = tuple([order for order in orders if now - startup <= order[0] <= now])
    if ordered > 0:
        orders = (*orders, (now, ordered))
    burst = sum([count for _, count in orders]) if ordered > 0 else 0
    span = int(now // SPAN)
    largest = old.largest
    if burst or span != old.span:
        missed = min(span - old.span, KEPT) if largest else 1
        largest = (*largest, *(0,) * max(missed, 0))[-KEPT:]
        largest = (*largest[:-1], max(largest[-1], burst))
    return BurstHistory(orders, span, largest)


def pool_size(history: BurstHistory, limit: int) -> int:
    """Return the replicas to keep paused, at most `limit`."""
    return max(0, min(max(history.largest, default=0), limit))
