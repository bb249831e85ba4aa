"""Makes a Swarm of hosts, and adds hosts to one: `meshd bootstrap` and `meshd node add`.

`plan` (pure) decides, `hosts` reads and changes engines, `ssh_tunnel` reaches those behind SSH.
"""
