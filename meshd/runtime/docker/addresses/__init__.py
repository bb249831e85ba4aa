"""Virtual addresses on the engine's networks: the free part of each network, the redirection of
connections to the proxy, and the names in hosts files; the redirection of published ports.

`meshd.runtime.docker.network` and `runtime` use it. Which service has which address is decided in
`meshd.publish.virtual_addresses`.
"""
