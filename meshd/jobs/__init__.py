"""One-off jobs: commands in a service's image, environment and networks, and their schedules.

`manager.JobManager` serves the API and runs the passes; `hook_runner` runs the hooks of rollouts.

Belongs here: what to do about each job (`plan`, pure), when a schedule is due (`schedule`, pure),
and keeping track of jobs. A job gets no requests, is not scaled, and does not count as a replica.
Does not belong here: starting containers (the reconciler does that on request), and storing jobs
(`meshd.store.jobs`).
"""
