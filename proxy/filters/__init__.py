"""Filters of routes: maintenance mode, error pages, cross-origin requests and a waiting page.

A route without filters never enters this package: `proxy.state.routing_table` compiles the filters
of each route once per snapshot, and `proxy.request` calls them where a route has rules. The rules
are pure functions of a request head; nothing here reads a socket.
"""
