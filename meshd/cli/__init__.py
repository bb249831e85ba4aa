"""The command line: commands and nothing else.

Belongs here: options, tables, exit codes. Does not belong here: anything that decides or does
the work; that is behind the API, or in the package that a command names.
"""
