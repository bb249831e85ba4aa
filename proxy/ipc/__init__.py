"""Communication between the processes of a proxy: messages, shared memory, sockets, configuration.

Used by `proxy.supervisor` and `proxy.worker`; `proxy.state` uses the shared memory. Does not belong
here: what the processes do with it.
"""
