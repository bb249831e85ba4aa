"""How people and programs talk to a running meshd: values, server, handlers, client.

Belongs here: the frozen values that cross the socket (`model`), the aiohttp application and
the client that the command line uses. Does not belong here: decisions; a handler turns a
request into one call of `Control` and its answer into JSON.
"""
