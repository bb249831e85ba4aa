"""Recording on the request path: counters, histograms, access log, spans and trace context.

Used by `proxy.request` and `proxy.worker`. Belongs here: recording that costs a few integer
operations per request, and draining the records into values of `proxy.wire.report` or into lines.
Does not belong here: sending, aggregating over workers, exposing metrics, and any decision.
"""
