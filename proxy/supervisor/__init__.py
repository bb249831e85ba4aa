"""The root process of the proxy: owns the listening sockets and restarts every other process.

Belongs here: worker processes, child processes, the feed socket, the stored snapshot, binary
upgrades. Does not belong here: anything that looks at a request (`proxy.worker`, `proxy.request`).
"""
