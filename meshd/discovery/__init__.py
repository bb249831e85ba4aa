"""Discovery: what runs, whether it answers, and which endpoints follow from that.

Belongs here: the always-current view of a runtime (`watch`), active probes (`probe`), and the
judgement on endpoints (`endpoints`, pure). Does not belong here: starting or stopping
anything, and the snapshot that endpoints go into.
"""
