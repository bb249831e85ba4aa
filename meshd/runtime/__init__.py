"""Runtimes: one protocol (`base`) and a package for each implementation.

Belongs here: starting, stopping, listing and watching replicas on Docker or as local processes.
Does not belong here: decisions. A runtime does what it is asked, reports what it sees, and declares
what it does not support.
"""
