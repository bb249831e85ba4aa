"""TLS of client connections: contexts, certificates, ticket keys, handshakes.

Used by `proxy.worker`, and by `proxy.supervisor` to read certificate files. Nothing here knows
HTTP: after the handshake, `proxy.worker.negotiated` chooses the protocol of the connection.
"""
