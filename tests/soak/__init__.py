"""Rolling updates under load, one after the other, counted by the clients.

Belongs here: the mixed load (`load`), the programs of `make soak` (`run`) and `make chaos`
(`chaos`). Does not belong here: scenarios that are checked in detail.
"""
