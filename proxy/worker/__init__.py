"""One worker process: connections, request path, access log, span export."""
