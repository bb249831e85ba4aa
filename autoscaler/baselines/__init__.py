"""Policies of other autoscalers, for comparison in `meshd simulate` and in the benchmark: HPA, KPA
and an oracle. Each has the interface of `autoscaler.Policy`. Nothing in production uses them."""
