"""Measurements: what the rules do in simulation, what a pick costs, what a request costs.

Belongs here: programs that print a table, run by hand and by `make bench`. Does not belong here:
tests (they fail; these only tell) and anything that the installed package needs.
"""
