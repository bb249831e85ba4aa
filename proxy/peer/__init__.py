"""What leaves a node goes from proxy to proxy, over mutually authenticated TLS 1.3.

- `protocol`: the name of a proxy in its certificate, and the bytes before those of a connection
- `files`: the certificate of this node and the authority of the mesh, as files
- `routes`: how this worker reaches the endpoints of other nodes
- `opening`: opens a connection to an endpoint through the proxy of its node
- `pipe`, `tunnel`: two connections joined; a connection to a peer as a plain socket

A connection carries that of one endpoint, as it is: the receiving proxy decrypts and passes bytes
on. So HTTP/1.1, HTTP/2, WebSockets and TCP work alike, and all policies, retries and counts stay at
the first proxy, which also knows the caller. The receiving side is `proxy.tcp.peer_relay`,
the transport on both sides `proxy.tls.peer_transport`.
"""
