"""What runs replicas: one protocol (`base`), and a module for each thing that can.

Belongs here: starting, stopping, listing and watching replicas on Docker or as local
processes. Does not belong here: deciding anything. A runtime does what it is told, tells
what it sees, and declares what it cannot do.
"""
