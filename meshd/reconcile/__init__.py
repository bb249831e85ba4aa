"""Reconciliation: compare the desired state with what runs, and close the gap.

`loop.Reconciler` owns all of it. Other packages use its three ports: `view`, `request`, `ready`.

Belongs here: reading the desired state (`desired_state`), observation (`observe`), decisions
(`plan` and `rollout`, both pure), ownership of projects, previews of deployments, and carrying
operations out (`execute`, the only package that changes anything on a runtime). Does not belong
here: knowledge of a particular runtime, of the wire, or of how state is stored.
"""
