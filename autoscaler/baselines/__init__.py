"""Policies of other autoscalers, as baselines for benchmarks: HPA, KPA and an oracle."""
