"""The hosts file of a running container: the names of mesh-managed services in it are kept current.

The engine writes the file when a container starts. A service that is added later, or that changes
between plain and mesh-managed, is found by containers that run already only if their file changes.
The engine keeps it on its host, so this needs a local engine and the right to write there.
"""

import os
from collections.abc import Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network


def edit_hosts(text: str, names: Mapping[str, str], blocks: Sequence[str]) -> str:
    """Return the content of a hosts file in which the addresses of the `blocks` have exactly these
    `names`. Other lines stay."""
    networks = [IPv4Network(block) for block in blocks]
    lines = text.splitlines()
    kept = [line for line in lines if not _is_in(line, networks)]
    mine = [f"{address}\t{name}" for name, address in sorted(names.items())]
    before = sorted(line.replace(" ", "\t").rstrip() for line in lines if line not in kept)
    return text if before == sorted(mine) else "\n".join([*kept, *mine, ""])


def write_hosts(path: str, names: Mapping[str, str], blocks: Sequence[str]) -> None:
    """Edit a hosts file in place: the container has the file itself mounted. A reader sees the old
    content or the new one, for a moment possibly with empty lines at its end. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR)
    with open(descriptor, "r+b", buffering=0) as file:
        before = file.read()
        after = edit_hosts(before.decode(errors="surrogateescape"), names, blocks)
        data = after.encode(errors="surrogateescape")
        if data != before:
            file.seek(0)
            file.write(data.ljust(len(before), b"\n"))
            file.truncate(len(data))


def _is_in(line: str, networks: Sequence[IPv4Network]) -> bool:
    try:
        address = IPv4Address(line.split(maxsplit=1)[0])
    except (AddressValueError, IndexError):
        return False
    return any(address in network for network in networks)
