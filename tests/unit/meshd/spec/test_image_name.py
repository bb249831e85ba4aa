"""Names of images: their parts, and one spelling for all names of the same image."""

import pytest

from meshd.spec.fingerprint import compute_revision, is_revision_of
from meshd.spec.image_name import ImageName, normalize_image, parse_image_name
from meshd.spec.model import Service

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("postgres", ImageName("docker.io", "library/postgres", "latest")),
        ("team/app:1.2", ImageName("docker.io", "team/app", "1.2")),
        ("docker.io/postgres:16", ImageName("docker.io", "library/postgres", "16")),
        ("index.docker.io/library/postgres", ImageName("docker.io", "library/postgres", "latest")),
        ("registry-1.docker.io/a/b", ImageName("docker.io", "a/b", "latest")),
        ("ghcr.io/a/b/c:1", ImageName("ghcr.io", "a/b/c", "1")),
        ("localhost/app", ImageName("localhost", "app", "latest")),
        ("host:5000/app", ImageName("host:5000", "app", "latest")),
        ("host:5000/app:2", ImageName("host:5000", "app", "2")),
        ("[::1]:5000/app:2", ImageName("[::1]:5000", "app", "2")),
        ("Registry/app", ImageName("Registry", "app", "latest")),
        (f"app@{DIGEST}", ImageName("docker.io", "library/app", "", DIGEST)),
        (f"ghcr.io/a:1@{DIGEST}", ImageName("ghcr.io", "a", "1", DIGEST)),
    ],
)
def test_parts(image: str, expected: ImageName) -> None:
    assert parse_image_name(image) == expected
    assert parse_image_name(str(expected)) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            (
                "postgres",
                "postgres:latest",
                "library/postgres",
                "docker.io/postgres",
                "docker.io/library/postgres:latest",
                "index.docker.io/library/postgres",
            ),
            "postgres:latest",
        ),
        (("docker.io/valkey/valkey:8", "valkey/valkey:8"), "valkey/valkey:8"),
        (("docker.io/library/team/app:1",), "library/team/app:1"),
        (("ghcr.io/library/app",), "ghcr.io/library/app:latest"),
        ((f"docker.io/app:1@{DIGEST}",), f"app:1@{DIGEST}"),
    ],
)
def test_names_of_the_same_image_are_equal(names: tuple[str, ...], expected: str) -> None:
    assert {normalize_image(name) for name in names} == {expected}


@pytest.mark.parametrize("image", ["", DIGEST, "a" * 64, "596bd5f02adc"])
def test_an_id_is_kept(image: str) -> None:
    assert normalize_image(image) == image


def test_a_revision_does_not_depend_on_the_spelling() -> None:
    def revision(image: str) -> str:
        return compute_revision(Service(name="web", image=image))

    names = ("redis", "redis:latest", "docker.io/redis", "index.docker.io/library/redis:latest")
    assert {revision(name) for name in names} == {revision("redis")}
    assert revision("redis:7") != revision("redis")
    assert revision("redis") == "3d5vehuddc"  # as in earlier versions
    earlier = "fot5spuxy6"
    assert is_revision_of(earlier, Service(name="web", image="redis:latest"))
    assert not is_revision_of(earlier, Service(name="web", image="redis:7"))
