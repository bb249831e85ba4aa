"""One worker process: accepts connections, runs the request path, writes logs, exports spans.

Started by `proxy.supervisor.worker_pool`. Belongs here: the process around the request path.
Does not belong here: the request path itself (`proxy.request`).
"""
