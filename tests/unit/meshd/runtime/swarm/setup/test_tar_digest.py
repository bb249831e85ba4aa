"""The digest of a tar: what makes two volumes equal, whatever the pieces and the format."""

import io
import tarfile
from collections.abc import Sequence

import pytest

from meshd.runtime.swarm.setup.tar_digest import BadArchive, TarDigest, VolumeDigest

LONG = "./" + "a" * 150 + "/" + "b" * 150


def entry(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(content), 7, 0o644
    if name.endswith("/"):
        info.type = tarfile.DIRTYPE
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def archive(
    entries: Sequence[tuple[tarfile.TarInfo, bytes]], kind: int = tarfile.PAX_FORMAT
) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=kind) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def digest(data: bytes, step: int = 700) -> VolumeDigest:
    found = TarDigest()
    for start in range(0, len(data), step):
        found.add(data[start : start + step])
    return found.result()


ENTRIES = [
    entry("./"),
    entry("./a", b"x" * 1000),
    entry(LONG, b"y" * 512),
    entry("./link", type=tarfile.SYMTYPE, linkname="../" + "z" * 120),
    entry("./hard", type=tarfile.LNKTYPE, linkname="a"),
    entry("./big", b"", uid=3_000_000, gid=99),
    entry("./pipe", type=tarfile.FIFOTYPE),
]


@pytest.mark.parametrize("step", [1, 511, 512, 513, 100_000])
@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_pieces_formats_and_order_do_not_matter(step: int, kind: int) -> None:
    """Also: neither the directory itself nor lost+found counts."""
    first = digest(archive(ENTRIES))
    own = entry("./lost+found/", mode=0o700)
    assert digest(archive([ENTRIES[0], own, *reversed(ENTRIES[1:])], kind), step) == first
    assert (first.entries, first.size) == (6, 1512)


@pytest.mark.parametrize(
    "other",
    [
        entry("./b", b"x"),
        entry("./a", b"y"),
        entry("./a", b"xx"),
        entry("./a", b"x", mode=0o640),
        entry("./a", b"x", mode=0o4644),
        entry("./a", b"x", uid=1),
        entry("./a", b"x", gid=1),
        entry("./a", b"x", mtime=8),
        entry("./a", type=tarfile.SYMTYPE, linkname="x"),
        entry("./a", type=tarfile.LNKTYPE, linkname="x"),
        entry("./a/"),
        entry("./a", b"x", pax_headers={"SCHILY.xattr.user.one": "1"}),
        entry("./a", b"x", pax_headers={"SCHILY.xattr.user.one": "2"}),
        entry("./a", type=tarfile.CHRTYPE, devmajor=1),
        entry("./a", type=tarfile.CHRTYPE, devmajor=2),
    ],
)
def test_whatever_differs_is_seen(other: tuple[tarfile.TarInfo, bytes]) -> None:
    one = entry("./a", b"x")
    assert digest(archive([other])) != digest(archive([one]))
    assert digest(archive([entry("./", mode=0o700)])) != digest(archive([entry("./", mode=0o755)]))


def test_the_root_counts_with_its_owner() -> None:
    roots = [entry("./", type=tarfile.DIRTYPE, uid=uid) for uid in (0, 999)]
    assert digest(archive(roots[:1])) != digest(archive(roots[1:]))


SPARSE = entry("./a", b"x", pax_headers={"GNU.sparse.major": "1"})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ends early"),
        (archive([entry("./a", b"x" * 600)])[:1100], "ends early"),
        (b"no tar" * 200, "unreadable header"),
        (archive([SPARSE]), "sparse"),
        (archive([entry("./a", type=b"S")]), "sparse"),
        (archive([entry("./a", type=b"V")]), "unknown kind b'V'"),
        (archive([entry("./a", pax_headers={"x": "y" * 1_100_000})]), "too long"),
    ],
)
def test_an_archive_that_cannot_be_compared_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadArchive, match=reason):
        digest(data)
