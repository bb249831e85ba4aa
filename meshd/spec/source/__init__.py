"""Compose files to one tree: YAML, variables, `include`, `extends` and merging.

`meshd.spec.compose` calls `loader`, which calls the other modules. The readers in
`meshd.spec.reader` walk the tree with `cursor`.
"""
