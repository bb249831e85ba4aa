"""Desired state and history in one crash-safe SQLite file.

Belongs here: projects, revisions, rollouts, overrides, the autoscaler's state, events, the epoch
counter, and migrations of the schema. Does not belong here: anything that can be observed (the
runtime knows the replicas), and decisions.
"""
