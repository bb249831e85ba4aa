"""How many replicas are worth keeping paused: as many as were ever wanted at once.

A pool is filled again within one start-up, so it has to hold what is ordered within that time and
no more. The largest such rush of the last hours is its size: replicas kept paused cost memory
only, and one too few costs requests.
"""

from autoscaler.policy.state import Rushes

SPAN = 900.0
KEPT = 24
"""Stretches of `SPAN` seconds that are remembered: six hours of them."""


def observe(old: Rushes, ordered: int, startup: float, now: float) -> Rushes:
    """`old` with `ordered` replicas more at `now`; a cold one takes `startup` seconds."""
    orders = old.orders
    if orders and not now - startup <= orders[0][0] <= now:
        orders = tuple([order for order in orders if now - startup <= order[0] <= now])
    if ordered > 0:
        orders = (*orders, (now, ordered))
    rush = sum([count for _, count in orders]) if ordered > 0 else 0
    span = int(now // SPAN)
    largest = old.largest
    if rush or span != old.span:
        missed = min(span - old.span, KEPT) if largest else 1
        largest = (*largest, *(0,) * max(missed, 0))[-KEPT:]
        largest = (*largest[:-1], max(largest[-1], rush))
    return Rushes(orders, span, largest)


def size(rushes: Rushes, room: int) -> int:
    """Replicas to keep paused, where `room` more may run at all."""
    return max(0, min(max(rushes.largest, default=0), room))
