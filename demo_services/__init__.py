"""A food-delivery application that runs on the mesh: five services, a lunch rush, a locust file.

Belongs here: what a user's application would contain, and the scenario that drives it from
outside. Does not belong here: anything of the mesh itself. Nothing of ours is imported, so each
service is also an example of what a replica must do: listen on `$PORT`, answer the health path,
and finish its requests on SIGTERM.
"""
