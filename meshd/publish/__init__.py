"""From what is wanted and what runs to what the data plane routes by.

Belongs here: `compile`, pure, which turns specs and endpoints into a snapshot, and the
publisher, which sends it and collects the workers' acks. Does not belong here: deciding which
endpoints exist (`meshd.discovery`) or which revision gets traffic (`meshd.reconcile`).
"""
