"""The control plane: spec, store, observe, plan, execute, discover, publish.

Belongs here: what should run, what runs, and how to get from one to the other; the command line and
the API. Does not belong here: work done per request (`proxy`), and how many replicas the traffic
needs (`autoscaler`, called only by `meshd.scaling`).
"""
