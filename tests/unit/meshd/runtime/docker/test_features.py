"""Which features of a service an engine is too old for."""

from meshd.runtime.docker.features import missing_features
from meshd.spec.model import Attachment, EngineOptions, Healthcheck, Mount, Service

SERVICE = Service(
    name="web",
    healthcheck=Healthcheck(start_interval=1),
    options=EngineOptions(annotations={"a": "b"}),
    volumes=(
        Mount(type="image", source="i", target="/i", subpath="x"),
        Mount(type="volume", source="v", target="/v", subpath="x"),
        Mount(type="bind", source="/b", target="/b", recursive="readonly"),
        Mount(type="bind", source="/c", target="/c", recursive="disabled"),
    ),
    attachments={"n": Attachment(gw_priority=1, interface_name="eth1")},
)


def test_an_old_engine_lacks_them_all() -> None:
    found = {str(each): each.needed for each in missing_features(SERVICE, (1, 41))}
    assert found == {
        "healthcheck.start_interval needs Docker Engine 25.0": False,
        "annotations needs Docker Engine 24.0": False,
        "the image at /i needs Docker Engine 28.0": True,
        "the subpath at /v needs Docker Engine 26.0": True,
        "recursive at /b needs Docker Engine 25.0": True,
        "gw_priority of the network n needs Docker Engine 28.0": False,
        "interface_name in the network n needs Docker Engine 28.1": False,
    }


def test_a_new_engine_has_them_all() -> None:
    assert missing_features(SERVICE, (1, 51)) == []
    assert missing_features(Service(name="web"), (1, 41)) == []
