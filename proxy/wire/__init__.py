"""The values that cross a process boundary of the data plane, and their encoding.

Used by every process of a mesh. Belongs here: the snapshot (all that a worker routes by), the
report (all that a worker counted), the messages around them, and one codec that checks the
schema. Does not belong here: behaviour. Nothing here performs I/O; `codec` only frames bytes.
"""
