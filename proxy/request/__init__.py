"""The request path: one client connection, one exchange at a time, one upstream connection."""
