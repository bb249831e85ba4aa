"""HTTP/2 connections to endpoints: many requests at once on each.

`proxy.request` opens streams through `proxy.request.sinks`, and sees each as an `Upstream`.
`proxy.worker` and `proxy.http2` are the neighbours: one plugs it in, the other has the codec.
"""
