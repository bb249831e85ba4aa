"""From desired and observed state to a plan of operations. Pure.

`meshd.reconcile.loop` calls `plan.plan` in every pass, and `meshd.reconcile.preview` to look ahead.
"""
