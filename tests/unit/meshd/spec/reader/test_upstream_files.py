"""`x-mesh.upstream.tls`: its files are found next to the file that names them, and checked."""

from pathlib import Path

import pytest

from meshd.publish.compile import compile_upstream_tls
from meshd.spec.canonical import build_canonical
from meshd.spec.compose import load
from meshd.spec.errors import SpecError
from tests.support.certificate_authority import Authority


def write(folder: Path, tls: str, more: str = "") -> Path:
    file = folder / "compose.yml"
    file.write_text(
        f"services:\n  orders:\n    image: i\n    x-mesh:\n      upstream: {{tls: {tls}}}\n{more}"
    )
    return file


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    ca = Path(Authority(tmp_path).ca)
    loaded = load([write(tmp_path, f"{{ca: {ca.name}}}")], environment={})
    (service,) = loaded.project.services
    tls = compile_upstream_tls(service)
    assert tls is not None
    assert (tls.ca, tls.server_name, tls.insecure) == (str(ca), "orders", False)
    other = tmp_path / "other"
    other.mkdir()
    (other / "compose.yml").write_text("include: [../compose.yml]\n")
    loaded = load([other / "compose.yml"], environment={})
    assert loaded.project.services[0].mesh.upstream.tls == service.mesh.upstream.tls


def test_the_canonical_file_has_absolute_paths(tmp_path: Path) -> None:
    ca = Path(Authority(tmp_path).ca)
    loaded = load([write(tmp_path, f"{{ca: {ca.name}, server_name: a.test}}")], environment={})
    found = build_canonical(loaded)["services"]["orders"]["x-mesh"]
    assert found == {"upstream": {"tls": {"ca": str(ca), "server_name": "a.test"}}}


def test_true_means_the_defaults_and_false_none(tmp_path: Path) -> None:
    for text, encrypted in (("true", True), ("false", False)):
        (service,) = load([write(tmp_path, text)], environment={}).project.services
        assert (compile_upstream_tls(service) is not None) == encrypted


@pytest.mark.parametrize(
    ("tls", "more", "said"),
    [
        ("{ca: no.pem}", "", "/no.pem cannot be read: No such file or directory; expected"),
        ("{ca: compose.yml}", "", "/compose.yml has no certificate in PEM format; expected"),
        ("{cert: no.pem}", "", "/no.pem cannot be read"),
        ("{tls: 1}", "", "unknown key; expected one of ca, cert"),
        ("true", "      protocol: h2c\n", "protocol h2c is HTTP/2 in the clear; expected h2"),
        ("false", "      protocol: h2\n", "protocol h2 is HTTP/2 over TLS; expected upstream"),
        ("false, proxy_protocol: v1", "      protocol: h2c\n", "expected protocol http1"),
        ("false", "      protocol: grpc\n", "'grpc' is not valid; expected http1, h2c"),
        ("true", "      tcp: 8080\n", "upstream.tls is for HTTP, and port 8080 is passed on"),
    ],
)
def test_mistakes(tmp_path: Path, tls: str, more: str, said: str) -> None:
    with pytest.raises(SpecError) as error:
        load([write(tmp_path, tls, more)], environment={})
    assert said in str(error.value)
    assert "compose.yml:" in str(error.value)
