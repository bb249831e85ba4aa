"""Rolling updates under load, one after the other, counted by the clients.

Belongs here: the mixed load (`load`) and the program that `make soak` runs (`run`); a short one is
among the end-to-end tests. Does not belong here: what is tried once and judged by its details.
"""
