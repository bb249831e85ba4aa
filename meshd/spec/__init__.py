"""The spec: Compose files and `mesh.*` labels, read, checked and frozen.

`meshd.spec.compose.load` is the entry point for files, `meshd.spec.labels.adopt` for labels. The
rest of meshd uses the models in `meshd.spec.model`.

- `source/`: files to one tree of values that know their line
- `reader/`: the tree to the models
- `model/`: the models

Belongs here: the models, reading them, and the fingerprint that names a revision. Every error names
its file, line, service and field. Does not belong here: the state of what runs, and anything that
calls a runtime.
"""
