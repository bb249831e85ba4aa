"""Rollouts: stages, steps, canary analysis, hooks, outcome and status. Pure.

Called by `meshd.reconcile.plan`. `meshd.reconcile.loop` owns the analysis feed, which reads traffic
and stores analyses through the protocols that it is given.
"""
