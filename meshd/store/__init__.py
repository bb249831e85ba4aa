"""The desired state and the record of what was decided, in one crash-safe SQLite file.

Belongs here: projects, revisions, rollouts, overrides, the autoscaler's state, events, the
epoch counter, and migrations between versions of the schema. Does not belong here: anything
that can be observed (replicas are the runtime's to know), and decisions.
"""
