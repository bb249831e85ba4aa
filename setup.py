"""The build, where it needs more than pyproject.toml can say: with MESHD_COMPILE=1 the modules
that every request goes through are compiled to C by mypyc. Without it, and wherever it cannot be
done, they are the plain Python that they are written in.
"""

import os

from setuptools import setup

# All of one group, so that calls between them are calls of C functions. The rules that work on
# `Candidate`, a protocol, and whatever is asked once a second would gain nothing.
COMPILED = [
    *(f"proxy/http1/{name}.py" for name in (
        "chunked", "fields", "framing", "head", "limits", "rewrite", "shape",
    )),
    *(f"proxy/policy/{name}.py" for name in (
        "admit", "eject", "gradient", "hashing", "latency", "ratelimit", "retry", "route",
    )),
    *(f"proxy/observe/{name}.py" for name in ("counters", "histogram")),
    "proxy/wire/buckets.py",
    *(f"proxy/{name}.py" for name in (
        "bounds", "data_plane", "dispatch", "downstream", "endpoint_state", "entry", "exchange",
        "exchange_phases", "heads", "hedge", "mirror", "pool", "record", "recovery",
        "routing_table", "shared_cells", "tunnel", "upstream", "usual",
    )),
]  # fmt: skip


def extensions() -> list[object]:
    """What is to be compiled: nothing, unless it was asked for."""
    if os.environ.get("MESHD_COMPILE") != "1":
        return []
    from mypyc.build import mypycify

    return list(mypycify(["--strict", *COMPILED], opt_level="3", debug_level="0"))


setup(ext_modules=extensions())
