"""How long tests wait for what is to become true."""

from typing import Final

BUSY: Final = 4.0
"""So many times longer than on a machine where nothing else runs. A limit on a wait only says
when to give up; it costs nothing where all is well."""
