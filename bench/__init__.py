"""Benchmarks: cost of a request, of a pick, of the control process; balancing and autoscaling in
simulation.

Belongs here: programs that print a table, run by hand and by `make bench`. Does not belong here:
tests, which fail (a benchmark only reports), and anything that the installed package needs.
"""
