"""What the mesh measures and tells: merged reports, Prometheus figures, events and logs.

Belongs here: putting the workers' reports together, the exposition of `/metrics`, the words
that events are named by, and how log lines look. Does not belong here: deciding anything
from the figures (`meshd.scaling`, `meshd.reconcile`), and measuring (`proxy`).
"""
