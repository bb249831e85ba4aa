"""What the mesh measures and exposes: merged reports, usage, `/metrics`.

`meshd.daemon.worker_events` passes reports in; scaling, rollouts and the status read from here.

Belongs here: merging the workers' reports (`ingest`, `merge`), usage of CPU and memory
(`usage_sampler`), counts of a release (`release_counts`), counters and the exposition of `/metrics`
(`counters`, `metrics`, `service_metrics`, `exposition`), and which events are bad news (`events`).
Does not belong here: decisions made from the figures (`meshd.scaling`, `meshd.reconcile`), and
measuring itself (`proxy`).
"""
