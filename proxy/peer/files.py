"""The certificate with which this node's proxy proves who it is, as files.

`meshd.node_proxy` writes them: the control process for its own host, the agent on other nodes.
Workers read them for connections to other nodes, the supervisor for the port. Key and certificate
are in one file, so that they always match; its first line is the node's name.
"""

import os
import tempfile
from pathlib import Path
from typing import Final

from proxy.ipc.config import PeerConfig

CERTIFICATE_FILE: Final = "peer.pem"
"""File with the node's name, key and certificate, readable by its owner only."""
AUTHORITY_FILE: Final = "peer-authority.pem"
"""File with the certificate of the mesh's authority."""
_NAME: Final = "node: "
"""Begins the first line. What is outside of PEM blocks is a comment to OpenSSL."""
MAX_LINE: Final = 300
"""Characters of the first line that are read; a name in DNS has at most 253."""


def peer_config(state: Path, listen: str) -> PeerConfig:
    """Return the settings of the port for other proxies, with files in the state directory."""
    return PeerConfig(listen, str(state / CERTIFICATE_FILE), str(state / AUTHORITY_FILE))


def write_files(state: Path, node: str, chain: str, authority: str) -> None:
    """Store the identity of this node: `chain` has its key and certificate, as PEM. Raises
    OSError."""
    _replace(state / AUTHORITY_FILE, authority)
    _replace(state / CERTIFICATE_FILE, f"{_NAME}{node}\n{chain}")


def read_node(certificate: str) -> str:
    """Return the name of this node; empty if the file cannot be read."""
    try:
        with open(certificate) as file:
            line = file.readline(MAX_LINE)
    except (OSError, UnicodeDecodeError):
        return ""
    return line.removeprefix(_NAME).strip() if line.startswith(_NAME) else ""


def _replace(path: Path, content: str) -> None:
    """Replace a file as a whole, unless it has this content already."""
    try:
        if path.read_text() == content:
            return
    except OSError:
        pass
    descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # mode 0600
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(made, path)
