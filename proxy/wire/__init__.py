"""What crosses a process boundary of the data plane: frozen values and their encoding.

Belongs here: the snapshot (all that a worker knows), the report (all that a worker saw), the
messages around them, and one schema-checked codec. Does not belong here: behaviour. Nothing
in this package performs I/O, except that `codec` frames bytes.
"""
