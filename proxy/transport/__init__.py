"""What connections carry below HTTP: TLS to endpoints, and PROXY headers.

`proxy.state` and `proxy.request` use it, and so do the probes of `meshd.discovery`. Nothing in it
knows HTTP.
"""
