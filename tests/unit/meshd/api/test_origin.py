"""Host and Origin headers of requests at the TCP address."""

import pytest

from meshd.api.origin import is_known_host, is_same_origin


@pytest.mark.parametrize(
    ("host", "local", "names", "known"),
    [
        ("127.0.0.1:9901", "127.0.0.1", (), True),
        ("[::1]:9901", "::1", (), True),
        ("localhost:9901", "127.0.0.1", (), True),
        ("LOCALHOST.", "::1", (), True),
        ("localhost", "10.0.0.1", (), False),
        ("10.0.0.1", "10.0.0.1", (), True),
        ("10.0.0.2", "10.0.0.1", (), False),
        ("10.0.0.2", "10.0.0.1", ("10.0.0.2",), True),
        ("mesh.test", "10.0.0.1", ("mesh.test",), True),
        ("Mesh.Test:1", "10.0.0.1", ("MESH.test",), True),
        ("evil.test", "10.0.0.1", ("mesh.test",), False),
        ("a.mesh.test", "10.0.0.1", ("*.mesh.test",), True),
        ("a.b.mesh.test", "10.0.0.1", ("*.mesh.test",), False),
        ("mesh.test", "10.0.0.1", ("*.mesh.test",), False),
        ("", "10.0.0.1", ("mesh.test",), False),
        ("[::1", "::1", (), False),
        ("127.0.0.1@evil.test", "127.0.0.1", (), False),
    ],
)
def test_hosts(host: str, local: str, names: tuple[str, ...], known: bool) -> None:
    assert is_known_host(host, local, names) == known


@pytest.mark.parametrize(
    ("origin", "site", "same"),
    [
        (None, None, True),
        (None, "none", True),
        ("https://mesh.test:9901", "same-origin", True),
        ("http://mesh.test:9901", None, False),
        ("https://mesh.test", None, False),
        ("null", None, False),
        (None, "cross-site", False),
        ("https://mesh.test:9901", "same-site", False),
    ],
)
def test_origins(origin: str | None, site: str | None, same: bool) -> None:
    assert is_same_origin(origin, site, "https", "mesh.test:9901") == same
