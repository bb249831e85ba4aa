"""A food-delivery application to run on the mesh: five services, a lunch rush, a locust file.

Belongs here: what a user's application would contain, and the scenario that drives it from
outside. Does not belong here: anything of the mesh itself; nothing of ours is imported, so
each module is also an example of what a replica has to do: listen on `$PORT`, answer the
health path, drain on SIGTERM.
"""
