"""Discovery: which replicas run, whether they answer, and which endpoints follow from that.

The reconciler reads all three in every pass.

Belongs here: the current view of a runtime (`watch`), active probes (`probe`), and the endpoints
that follow from replicas (`endpoints`, pure). Does not belong here: starting or stopping anything
(`meshd.reconcile`), and the snapshot that endpoints become part of (`meshd.publish`).
"""
