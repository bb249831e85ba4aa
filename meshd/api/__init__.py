"""The HTTP API of the control process, on a Unix socket: values, protocols, server, client.

`meshd.daemon.wiring` starts the server; `meshd.cli` uses the client. `dto` holds the values that
are sent, `port` the protocols that `meshd.control` and `meshd.jobs` implement, `handlers` turn a
request into one call of `port.Control`, and `client` is the other end. Nothing is decided here.
"""
