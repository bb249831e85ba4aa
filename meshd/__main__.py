"""`python -m meshd` is `meshd`."""

from meshd.cli.main import main

main(prog_name="meshd")
