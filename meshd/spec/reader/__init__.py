"""The tree of a Compose file to the models: reads and checks every key of a service.

`meshd.spec.compose` calls `service` for each service and `project_checks` for all of them. The
other modules read groups of keys. `shorthand` is called by the models themselves.
"""
