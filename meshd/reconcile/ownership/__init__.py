"""Which mesh owns which project on a shared runtime.

`rules` decides (pure), and `claims` keeps the claims on the runtime. Owned by
`meshd.reconcile.loop`.
"""
