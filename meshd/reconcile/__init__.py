"""Reconciliation: from what is wanted and what is seen to the operations that close the gap.

Belongs here: observation (`observed`, `phase`), decision (`plan`, `rollout`, both pure, on
frozen values), and carrying out (`executor`, which decides nothing, and `loop`). Does not
belong here: knowledge of a particular runtime, of the wire, or of where state is stored.
"""
