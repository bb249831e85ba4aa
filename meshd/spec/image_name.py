"""Image names: their parts, and one spelling for all names of the same image. Pure.

Used by `fingerprint`, and by `meshd.runtime.docker`, which compares names, finds credentials by
registry, and tags images. The rules are those of github.com/distribution/reference.
"""

import re
from dataclasses import dataclass
from typing import Final

HUB: Final = "docker.io"
"""The registry of names that mention none."""
DEFAULT_TAG: Final = "latest"
_HUB_NAMES: Final = frozenset({HUB, "index.docker.io", "registry-1.docker.io"})
_OFFICIAL: Final = "library/"
_ID: Final = re.compile(r"^(sha256:)?[0-9a-f]{64}$|^[0-9a-f]{12}$|^sha256:|^$")
"""An image by its id, whole or as `docker images` prints it; or none at all."""


@dataclass(frozen=True, slots=True)
class ImageName:
    """The parts of an image name.

    - `registry`: host with port; `docker.io` if the name mentions none.
    - `path`: repository in the registry; `library/postgres` for `postgres`.
    - `tag`: empty only if the name has a digest.
    - `digest`: `sha256:…`; empty if the name has none.
    """

    registry: str
    path: str
    tag: str
    digest: str = ""

    @property
    def repository(self) -> str:
        """The shortest name of the repository: `postgres`, `team/app`, `ghcr.io/team/app`."""
        if self.registry != HUB:
            return f"{self.registry}/{self.path}"
        short = self.path.removeprefix(_OFFICIAL)
        return self.path if "/" in short else short

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"


def is_image_id(image: str) -> bool:
    """Whether the text is the id of an image instead of its name, or empty."""
    return _ID.search(image) is not None


def parse_image_name(image: str) -> ImageName:
    """Parse the name of an image; every text has a result. The tag is `latest` if the name has
    neither a tag nor a digest. The colon of a registry's port does not begin a tag."""
    name, _, digest = image.partition("@")
    first, slash, rest = name.partition("/")
    names_registry = slash and (
        "." in first or ":" in first or first == "localhost" or first.lower() != first
    )
    registry, path = (first, rest) if names_registry else (HUB, name)
    if registry in _HUB_NAMES:
        registry = HUB
    head, slash, last = path.rpartition("/")
    last, _, tag = last.partition(":")
    path = head + slash + last
    if registry == HUB and "/" not in path:
        path = _OFFICIAL + path
    return ImageName(registry, path, tag or ("" if digest else DEFAULT_TAG), digest)


def normalize_image(image: str) -> str:
    """Return the shortest name of the image with its tag or digest, equal for all names that mean
    the same: `postgres:latest` for `docker.io/library/postgres`. An id is returned as it is."""
    return image if is_image_id(image) else str(parse_image_name(image))
