"""Deploying a project: what is refused, what it would take, how it begins, and how far it is.

Belongs here: everything that is asked of a project as a whole. Does not belong here: single
services and replicas (`meshd.control`), rollouts by hand (`meshd.rollouts`), and the steps
themselves, which the loop takes once the store says what is wanted.
"""
