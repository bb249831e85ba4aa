"""The standalone reverse proxy behind `meshd proxy`.

`meshd.cli.commands.proxy` reads the settings, builds the configuration and runs the proxy's
supervisor, which starts the helper process.

- `settings`: the settings, from a file and the command line
- `tcp_settings`, `upstream_address`: TCP ports and targets in them
- `build`: the settings to a snapshot and a supervisor configuration
- `automatic`: certificates from a certificate authority
- `helper`: the process that probes, resolves names, reloads the file and serves `/metrics`

Does not belong here: anything that starts replicas. A standalone proxy balances over addresses that
are managed elsewhere.
"""
