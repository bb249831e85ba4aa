"""Bad revisions under load on a real engine: each is rolled back. One of them loses its image after
its deployment was accepted and before its first replica starts."""

import pytest

from tests.support.bad_revisions import (
    HELD,
    check_rollbacks,
    deploy_bad_revisions,
    docker,
    lost_image,
    make_lost_image,
)
from tests.support.mesh import TestMesh


@pytest.mark.slow
@pytest.mark.acceptance
@pytest.mark.timeout(600)
@pytest.mark.parametrize("runtime", [pytest.param("docker", marks=pytest.mark.engine)])
async def test_every_bad_revision_is_rolled_back(mesh: TestMesh, engine_image: str) -> None:
    held = mesh.folder / HELD
    held.mkdir()
    image = await make_lost_image(mesh, engine_image)

    async def lose_image() -> None:
        await docker("rmi", "--force", image)
        (held / "go").touch()

    seen, detail = await deploy_bad_revisions(mesh, engine_image, lose_image)
    assert "was rolled back" in detail
    reasons = {
        "errors": "of its requests failed",
        "slow": "of its requests took over",
        "never": "not healthy within 8 s",
        "crash": "exited with code 1",
        "gone": f"the image that {lost_image(mesh)} named at deployment",
    }
    await check_rollbacks(mesh, seen, reasons)
