"""Where a container listens, from the kernel's tables."""

from pathlib import Path

import pytest

from meshd.discovery.listening import describe, find_hint, parse_listeners

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue\n"
PUBLIC = "   0: 00000000:0BB8 00000000:0000 0A 00000000:00000000\n"
LOCAL = "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n"
NAMES = "   2: 0B00007F:A1B2 00000000:0000 0A 00000000:00000000\n"
CONNECTED = "   3: 0200000A:1F91 0100000A:C000 01 00000000:00000000\n"
PUBLIC_6 = f"   0: {'0' * 32}:0050 {'0' * 32}:0000 0A 00000000:00000000\n"
LOCAL_6 = f"   1: {'0' * 24}01000000:0051 {'0' * 32}:0000 0A 00000000:00000000\n"
MAPPED_6 = f"   2: {'0' * 16}FFFF00000100007F:0052 {'0' * 32}:0000 0A 00000000:00000000\n"


def test_listening_sockets_are_found() -> None:
    tables = [HEADER + PUBLIC + LOCAL + NAMES + CONNECTED, HEADER + PUBLIC_6 + LOCAL_6 + MAPPED_6]
    assert parse_listeners(tables) == ({3000, 80}, {8080, 81, 82})


@pytest.mark.parametrize(
    ("public", "local", "expected"),
    [
        (
            {3000},
            set(),
            "nothing listens on port 8080; the container listens on port 3000: let the program "
            "listen on $PORT, or set x-mesh.port to 3000",
        ),
        (
            {9229, 3000},
            {8080},
            "the container listens on 127.0.0.1:8080 only, which nothing outside of it reaches; "
            "let the program listen on 0.0.0.0",
        ),
        (
            {1, 2, 3, 4, 5},
            set(),
            "nothing listens on port 8080; the container listens on ports 1, 2, 3, 4, …: let the "
            "program listen on $PORT, or set x-mesh.port",
        ),
        (
            set(),
            {81},
            "nothing listens on port 8080; the container listens on port 81 of 127.0.0.1 only",
        ),
        (set(), set(), "nothing listens on port 8080, nor on another one"),
    ],
)
def test_hints(public: set[int], local: set[int], expected: str) -> None:
    assert describe(8080, public, local) == expected


def test_the_process_must_be_of_the_container(tmp_path: Path) -> None:
    assert find_hint("10.2.0.2", 8080, 7, tmp_path) == ""
    net = tmp_path / "7" / "net"
    net.mkdir(parents=True)
    (net / "tcp").write_text(HEADER + PUBLIC)
    (net / "tcp6").write_text(HEADER)
    (net / "fib_trie").write_text("Local:\n  |-- 10.2.0.20\n     /32 host LOCAL\n")
    assert find_hint("10.2.0.2", 8080, 7, tmp_path) == ""
    (net / "fib_trie").write_text("Local:\n  |-- 10.2.0.2\n     /32 host LOCAL\n")
    assert "listens on port 3000" in find_hint("10.2.0.2", 8080, 7, tmp_path)
    assert find_hint("10.2.0.2", 3000, 7, tmp_path) == ""
