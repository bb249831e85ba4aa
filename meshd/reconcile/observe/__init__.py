"""Observation of replicas, and the reconciler's memory between passes. Pure.

Owned by `meshd.reconcile.loop`; plans, rollouts and the event recorder read the values.
"""
