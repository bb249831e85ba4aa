"""Reconciliation: from what is wanted and what is seen to the operations that close the gap.

Belongs here: observation (`observed`, `phase`), decision (`plan`, `rollout`, both pure, on
frozen values), and carrying out (`steps` and `executor`, which decide nothing, and `loop`, in
which all of it meets). Does not belong here: knowledge of a particular runtime, of the wire, or
of where state is stored.
"""
