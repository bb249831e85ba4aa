"""The autoscaler inside the control process: reports → policy → number of replicas in the store.

`meshd.daemon.ticker` calls `controller.ScalingController.step` once a second; `meshd.reconcile`
reads the number from the store and acts on it.

- Input: `settings` (from the spec), `signals` (from the reports), `prometheus_queries`, `schedule`.
- Decision: `decide` runs the policy (`autoscaler`), `limits` and `meshd.capacity` cap it,
  `scale_from_zero` handles a service without replicas.
- Output: `state_store` (numbers and learned state), `decision_record` (for `meshd explain`).
- `sizing` proposes CPU and memory limits from usage.

Belongs here: everything between the reports and the stored number. Does not belong here: how the
policy decides (`autoscaler`), and how replicas are started and stopped (`meshd.reconcile`).
"""
