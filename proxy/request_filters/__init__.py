"""Filters of routes that take part in an exchange: they change its request, replace its client's
side, or hold it until another service has answered.

`proxy.request.data_plane` enters this package by `begin.begin_filters` for a route with such
filters, and nothing else does. The rules are in `proxy.filters`.
"""
