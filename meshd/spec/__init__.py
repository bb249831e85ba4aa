"""What should run: the Compose file, read, checked and frozen.

Belongs here: the model, reading Compose files and `mesh.*` labels into it, and the
fingerprint that names a revision. Every error names file, line, service and field. Does not
belong here: what runs now, and anything that talks to a runtime.
"""
