"""Resolve and check the files of `upstream.tls` when a file of settings is read.

Called by `meshd.spec.reader.service` for Compose files and by `meshd.standalone.settings` for the
file of `meshd proxy`. Specs that are stored already are not checked again, so that a file that has
vanished since does not keep the daemon from starting.
"""

from pathlib import Path
from typing import Final

from meshd.spec.model import Mesh, UpstreamTlsSpec
from meshd.spec.source.cursor import Cursor
from proxy.transport.upstream_tls import TlsFiles, make_context
from proxy.wire.snapshot import UpstreamTls

FILE_KEYS: Final = ("ca", "cert", "key")
"""Keys of `upstream.tls` that name a file."""


def resolve_files(mesh: Mesh, folder: Path) -> Mesh:
    """Return the settings with the files of `upstream.tls` as absolute paths, relative to
    `folder`."""
    tls = mesh.upstream.tls
    if tls is None:
        return mesh
    paths = {key: getattr(tls, key) for key in FILE_KEYS}
    absolute = {key: str(folder / Path(path).expanduser()) for key, path in paths.items() if path}
    found = tls.model_copy(update=absolute)
    return mesh.model_copy(update={"upstream": mesh.upstream.model_copy(update={"tls": found})})


def check_files(at: Cursor, mesh: Mesh) -> None:
    """Record what is wrong with the files of `upstream.tls` of the settings under `at`."""
    problem = find_problem(mesh.upstream.tls) if mesh.upstream.tls is not None else None
    if problem is None:
        return
    for key in ("upstream", "tls"):
        node = (at.node.mapping or {}).get(key)
        if node is not None:
            at = at.child(node, key)
    at.add_problem(problem)


def find_problem(tls: UpstreamTlsSpec) -> str | None:
    """Return what is wrong with the files of these settings, for people; None if nothing is."""
    try:
        make_context(UpstreamTls(**vars(tls)))
    except TlsFiles as error:
        return f"{error}; expected a file with certificates or a key in PEM format"
    return None
