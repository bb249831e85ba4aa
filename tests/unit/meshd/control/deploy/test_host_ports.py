"""Whether something on the host already listens on a port."""

import socket

import pytest

from meshd.control.deploy.host_ports import find_taken_ports
from meshd.publish.published_ports import HostPort


def host_port(port: int, protocol: str, host: str = "") -> HostPort:
    return HostPort("shop/web", True, 80, "shop/web", host, port, protocol)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_with_a_listener_is_taken(protocol: str) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as listener:
        listener.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            listener.listen()
        port = listener.getsockname()[1]
        for host in ("", "127.0.0.1"):
            wanted = host_port(port, protocol, host)
            assert find_taken_ports([wanted]) == [wanted]
        assert find_taken_ports([host_port(port, protocol, "127.0.0.2")]) == []
    assert find_taken_ports([host_port(port, protocol)]) == []


def test_a_port_that_cannot_be_tried_counts_as_free() -> None:
    assert find_taken_ports([host_port(80, "sctp"), host_port(80, "tcp", "192.0.2.77")]) == []
