"""HTTP/2 connections of clients: each of their streams is an exchange like any other.

`proxy.worker` creates the connections, after a TLS handshake that chose HTTP/2 or for a client that
begins with it. It can be imported only where `proxy.http2.is_available()`.
"""
