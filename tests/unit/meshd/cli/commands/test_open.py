"""`meshd open`: the URL of a service."""

import msgspec
import pytest

from meshd.cli.commands.open import find_url
from tests.fakes import traffic


@pytest.mark.parametrize(
    ("proxy", "routes", "ports", "url"),
    [
        (("127.0.0.1:8080",), ("/shop",), (), "http://localhost:8080/shop"),
        (("0.0.0.0:80",), ("shop.test/a",), (), "http://shop.test/a"),
        (("0.0.0.0:443",), ("*.test",), (), "https://localhost"),
        (("192.0.2.1:81",), ("/",), (), "http://192.0.2.1:81/"),
        (("127.0.0.1:8080",), ("/x (header:X-Canary)", "/y"), (), "http://localhost:8080/y"),
        (("unix:/run/x.sock",), ("/",), ("0.0.0.0:5000->3000/tcp",), "http://localhost:5000/"),
        (("127.0.0.1:8080",), (), (), None),
    ],
)
def test_urls(
    proxy: tuple[str, ...], routes: tuple[str, ...], ports: tuple[str, ...], url: str | None
) -> None:
    status = msgspec.structs.replace(traffic.status(), proxy=proxy)
    service = msgspec.structs.replace(status.services[0], routes=routes, ports=ports)
    assert find_url(status, service) == url
