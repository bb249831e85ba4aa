"""The decisions of the request path as pure code: which route, which endpoint, whether a request
may be sent now, whether it may be retried, whether an endpoint is ejected.

Used by `proxy.request` and `proxy.state`. Belongs here: rules over plain values, with `now` and
random numbers as arguments; small mutable state where a rule needs memory (a token bucket, a
round-robin position). Does not belong here: sockets, event loops, clocks, random sources,
logging, and anything that knows how a request looks on the wire.
"""
