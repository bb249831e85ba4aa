"""One-off jobs: commands in a service's image, environment and networks, and their schedules.

Belongs here: what becomes of a job (pure), when a schedule is due (pure), and the shell that
carries both out. A job is never routed to, scaled or counted as a replica. Does not belong here:
starting a container (meshd.runtime), keeping what was (meshd.store.jobs).
"""
