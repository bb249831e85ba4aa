"""The command line: options, output and exit codes of `meshd`.

`main` finds the commands, one module each in `commands/`. They are clients of the daemon's API
(`meshd.api.client`), or call the package that does the work (`meshd.standalone`, `autoscaler`).
Nothing is decided here.
"""
