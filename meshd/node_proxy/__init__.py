"""Proxies on other nodes: `meshd node join` there, and its counterpart in the control process.

- `identity`, `authority`, `join_token`: who may connect: the mesh's authority, its certificates
- `protocol`: the messages on the encrypted connection between the two
- `snapshot`: the snapshot of the mesh as another node can use it
- `proxies`: what the control process knows of these proxies, next to its local workers
- `server`: accepts their connections in the control process
- `enrollment`, `agent`: on the node: join once, then connect the supervisor to the control process

`meshd.daemon.wiring` makes the side of the control process; `meshd.cli.commands.node` starts the
side of the node. The proxy itself is the ordinary one of the package `proxy`.
"""
