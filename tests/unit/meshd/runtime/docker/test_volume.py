"""What a tar shows while it passes: its first entry, and whether it is complete."""

import io
import tarfile

import pytest

from meshd.runtime.docker.volume import TarStream


def archive(*entries: tuple[str, bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=kind) as tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            if name.endswith("/"):
                entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o750, 999, 998
            entry.mtime = 1.5
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def passed(data: bytes, size: int = 700) -> TarStream:
    tar = TarStream()
    for start in range(0, len(data), size):
        tar.add(data[start : start + size])
    return tar


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("size", [1, 512, 700, 100_000])
def test_the_directory_itself_comes_first(kind: int, size: int) -> None:
    tar = passed(archive(("./", b""), ("./file", b"x" * 600), kind=kind), size)
    assert tar.is_complete
    assert tar.has_content
    root = tar.root
    assert root is not None
    assert (root.mode, root.uid, root.gid) == (0o750, 999, 998)


def test_a_tar_of_files_alone_has_no_entry_of_the_directory() -> None:
    tar = passed(archive(("value", b"x"), ("./", b"")))
    assert tar.root is None
    assert tar.has_content


def test_an_empty_directory_has_no_content() -> None:
    assert not passed(archive(("./", b""))).has_content
    assert not passed(archive(("./", b""), ("./lost+found/", b""))).has_content


@pytest.mark.parametrize(
    "data",
    [b"", b"garbage" * 300, archive(("a", b"x" * 600))[:1000], archive(("a", b"x" * 512))[:1024]],
)
def test_an_incomplete_tar_is_seen(data: bytes) -> None:
    tar = passed(data)
    assert not tar.is_complete
    assert tar.root is None
