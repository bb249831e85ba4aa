"""The stand-alone reverse proxy behind `meshd proxy`.

Belongs here: its settings (flags and file), how they become a snapshot and a supervisor
configuration, and the small helper process beside it that probes, resolves names, reads the
file again and serves `/metrics`. Does not belong here: anything that starts replicas; a front
door balances over addresses that somebody else looks after.
"""
