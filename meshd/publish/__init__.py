"""Desired services and endpoints → the snapshot that the workers route by, and its delivery.

`meshd.reconcile.publish_snapshot` compiles and publishes after each pass; `meshd proxy` does the
same for its fixed endpoints.

Belongs here: `compile` (pure), which makes a snapshot of specs and endpoints; `gateways`, the
addresses where the mesh listens for calls between services; `publisher`, which sends snapshots and
collects the workers' acks; `last_snapshot`, which reads the one stored. Does not belong here: which
endpoints exist (`meshd.discovery`), and which revision gets traffic (`meshd.reconcile`).
"""
