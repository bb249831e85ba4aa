"""What the request path remembers of what it did: counters, histograms, access log, trace ids.

Belongs here: recording that costs a few integer operations a request, and draining what was
recorded into the values of `proxy.wire.report` or into lines. Does not belong here: sending,
aggregating over workers, exposing metrics, and any decision.
"""
