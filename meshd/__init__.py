"""The control path: spec, store, observe, plan, execute, discover, publish.

Belongs here: what should run, what does run, and the way from one to the other; the command
line and the API. Does not belong here: anything done per request (that is `proxy`), and how
many replicas traffic needs (that is `autoscaler`, called by `meshd.scaling` alone).
"""
