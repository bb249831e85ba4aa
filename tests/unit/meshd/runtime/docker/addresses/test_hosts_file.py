"""Names in the hosts file of a running container."""

from pathlib import Path

import pytest

from meshd.runtime.docker.addresses.hosts_file import edit_hosts, write_hosts

BLOCKS = ("10.1.255.0/24", "10.2.255.0/24")
TEXT = "127.0.0.1\tlocalhost\n::1\tip6-localhost\n10.1.255.7\tbefore\n10.1.0.3\t0123456789ab\n"


def test_names_of_the_blocks_are_replaced() -> None:
    names = {"web": "10.1.255.8", "api": "10.2.255.9"}

    assert edit_hosts(TEXT, names, BLOCKS) == (
        "127.0.0.1\tlocalhost\n::1\tip6-localhost\n10.1.0.3\t0123456789ab\n"
        "10.2.255.9\tapi\n10.1.255.8\tweb\n"
    )
    assert "10.1.255.7" not in edit_hosts(TEXT, {}, BLOCKS)


@pytest.mark.parametrize("line", ["10.1.255.7\tbefore", "10.1.255.7 before"])
def test_a_file_that_is_as_wanted_is_left_alone(line: str) -> None:
    text = TEXT.replace("10.1.255.7\tbefore", line)

    assert edit_hosts(text, {"before": "10.1.255.7"}, BLOCKS) == text


def test_a_file_is_written_in_place(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text(TEXT)
    inode = path.stat().st_ino
    with path.open() as mounted:
        write_hosts(str(path), {"web": "10.1.255.8"}, BLOCKS)
        assert "10.1.255.8\tweb\n" in mounted.read()
        write_hosts(str(path), {}, BLOCKS)
    assert path.read_text() == TEXT.replace("10.1.255.7\tbefore\n", "")
    assert path.stat().st_ino == inode
