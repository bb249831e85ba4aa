"""The scaling path in the control process: reports → autoscaler → store.

Belongs here: what a spec asks of the autoscaler (`ask`), what a second looked like to it
(`signals`), and the step that turns both into one number a service (`scaling`). Besides the
simulator nothing else knows the autoscaler. Does not belong here: how a number is decided
(`autoscaler`), and what becomes of it (`meshd.reconcile`).
"""
