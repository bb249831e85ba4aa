"""What a tar of a volume contains, in one value, so that two of them can be compared. Pure.

Used by `volumes`: computed while the tar passes, with one header in memory. Two archives are equal
if they have the same entries, in whatever order: names, kinds, owners, modes, times in seconds,
targets of links, device numbers, extended attributes, and contents.
"""

import hashlib
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hashlib import _Hash

BLOCK: Final = 512
"""Bytes of a tar's header, and what contents are padded to (POSIX)."""
LONGEST_HEADER: Final = 1_048_576
"""Bytes of extended headers that are kept for one entry: names and attributes. Linux limits names
to 4 KiB and an attribute to 64 KiB."""
DIGEST_BYTES: Final = 32
"""Bytes of a SHA-256."""
XATTR: Final = "SCHILY.xattr."
"""Prefix of extended attributes in a PAX header."""
LINUX_OWN: Final = "lost+found"
"""The directory that a fresh ext file system has."""
_PAX, _LONG_NAME, _LONG_LINK, _GLOBAL = b"x", b"L", b"K", b"g"
_EXTENDED: Final = (_PAX, _LONG_NAME, _LONG_LINK, _GLOBAL)


class BadArchive(Exception):
    """A tar that cannot be read, or that ends early."""


@dataclass(frozen=True, slots=True)
class VolumeDigest:
    """The content of a volume. `entries`: files, directories and links; `size`: bytes of all
    files; `digest`: SHA-256 values of all entries added up, in hexadecimal."""

    entries: int
    size: int
    digest: str


class TarDigest:
    """Computes the digest of a tar that is added piece by piece."""

    def __init__(self) -> None:
        self._block = bytearray()
        self._extended = bytearray()
        self._left = 0
        self._padding = 0
        self._kind = b""
        self._content: _Hash | None = None
        self._names: dict[str, bytes] = {}
        self._entry: list[bytes] = []
        self._entries = 0
        self._size = 0
        self._sum = 0
        self._ended = False

    def add(self, piece: bytes) -> None:
        """Take the next piece of the tar. Raises BadArchive."""
        rest = memoryview(piece)
        while rest and not self._ended:
            if self._left or self._padding:
                rest = self._take_content(rest)
                continue
            missing = BLOCK - len(self._block)
            self._block += rest[:missing]
            rest = rest[missing:]
            if len(self._block) == BLOCK:
                header = bytes(self._block)
                self._block.clear()
                self._take_header(header)

    def result(self) -> VolumeDigest:
        """Return the digest of the whole tar. Raises BadArchive if it is not complete."""
        if not self._ended:
            raise BadArchive("the archive ends early")
        text = self._sum.to_bytes(DIGEST_BYTES, "big").hex()
        return VolumeDigest(self._entries, self._size, text)

    def _take_content(self, rest: memoryview) -> memoryview:
        piece, rest = rest[: self._left], rest[self._left :]
        if piece:
            self._left -= len(piece)
            if self._content is not None:
                self._content.update(piece)
            else:
                self._extended += piece
        if not self._left:
            skipped = min(self._padding, len(rest))
            self._padding -= skipped
            rest = rest[skipped:]
            if not self._padding:
                self._end_entry()
        return rest

    def _take_header(self, block: bytes) -> None:
        if not any(block):
            self._ended = True
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise BadArchive(f"the archive has an unreadable header: {error}") from error
        self._kind = header.type
        size = header.size
        if self._kind in _EXTENDED:
            if size + sum(map(len, self._names.values())) > LONGEST_HEADER:
                raise BadArchive("the archive has an extended header that is too long")
            self._content = None
        elif (
            header.isfile() or header.islnk() or header.issym() or header.isdir() or header.isdev()
        ):
            size = self._begin_entry(header)
        else:
            raise BadArchive(f"the archive has an entry of an unknown kind {header.type!r}")
        self._left, self._padding = size, -size % BLOCK
        if not size:
            self._end_entry()

    def _begin_entry(self, header: tarfile.TarInfo) -> int:
        """Begin an entry with its header and the extended ones before it; return the bytes of its
        content."""
        names, self._names = self._names, {}
        sparse = header.type == tarfile.GNUTYPE_SPARSE
        if sparse or any(key.startswith("GNU.sparse.") for key in names):
            raise BadArchive("the archive has sparse files, whose format is not supported")
        name = _normal(names.get("path", _encode(header.name)))
        link = names.get("linkpath", _encode(header.linkname))
        try:
            size = int(names["size"]) if "size" in names else header.size
            uid = int(names["uid"]) if "uid" in names else header.uid
            gid = int(names["gid"]) if "gid" in names else header.gid
            time = int(float(names["mtime"])) if "mtime" in names else int(header.mtime)
        except ValueError as error:
            raise BadArchive(f"the archive has an unreadable extended header: {error}") from error
        if not header.isreg():
            size = 0
        elif size < 0:
            raise BadArchive("the archive has an entry of negative size")
        numbers = (header.mode & 0o7777, uid, gid, time, size)
        devices = (header.devmajor, header.devminor) if header.ischr() or header.isblk() else ()
        self._content = hashlib.sha256()
        self._entry = [name, _kind_of(header), link if header.issym() else _normal(link)]
        self._entry += [b"%d" % number for number in (*numbers, *devices)]
        self._entry += _attributes(names)
        self._size += size
        return size

    def _end_entry(self) -> None:
        if self._content is None:
            self._end_extended()
            return
        name = self._entry[0]
        if name == LINUX_OWN.encode():
            return
        parts = [*self._entry, self._content.digest()]
        whole = hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts))
        self._sum = (self._sum + int.from_bytes(whole.digest(), "big")) % (1 << 8 * DIGEST_BYTES)
        self._entries += bool(name)

    def _end_extended(self) -> None:
        """Keep what an extended header says about the next entry."""
        text, self._extended = bytes(self._extended), bytearray()
        if self._kind == _LONG_NAME:
            self._names["path"] = text.rstrip(b"\0")
        elif self._kind == _LONG_LINK:
            self._names["linkpath"] = text.rstrip(b"\0")
        elif self._kind == _PAX:
            self._names.update(_read_records(text))


def _read_records(text: bytes) -> dict[str, bytes]:
    """Return the records of a PAX header: `LENGTH KEY=VALUE` and a line feed each."""
    found = {}
    while text:
        number, _, _ = text.partition(b" ")
        if not number.isdigit() or not len(number) < int(number) <= len(text):
            raise BadArchive("the archive has an unreadable extended header")
        record, text = text[len(number) + 1 : int(number) - 1], text[int(number) :]
        key, sign, value = record.partition(b"=")
        if not sign:
            raise BadArchive("the archive has an unreadable extended header")
        found[key.decode(errors="surrogateescape")] = value
    return found


def _kind_of(header: tarfile.TarInfo) -> bytes:
    return b"file" if header.isreg() else header.type


def _attributes(names: Mapping[str, bytes]) -> list[bytes]:
    """Return the extended attributes, in order."""
    found = sorted(key for key in names if key.startswith(XATTR))
    return [part for key in found for part in (_encode(key), names[key])]


def _normal(name: bytes) -> bytes:
    """Return a name relative to the volume; empty for the volume's directory itself."""
    name = name.rstrip(b"/")
    while name.startswith(b"./"):
        name = name[2:].lstrip(b"/")
    return b"" if name == b"." else name


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
