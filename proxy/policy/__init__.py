"""Every decision of the request path, as pure code: which route, which endpoint, may it go now,
may it be tried again, is an endpoint out of order.

Belongs here: rules over plain values, with `now` and the dice as arguments; small mutable state
where a rule needs memory (a token bucket, a turn counter). Does not belong here: sockets, event
loops, clocks, random sources, logging, and anything that knows how a request looks on the wire.
"""
