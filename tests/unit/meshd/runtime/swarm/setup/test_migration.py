"""Which services move to a Swarm, which stay and why, and what prevents a migration."""

from typing import Any

import pytest

from meshd.runtime.swarm.runtime import CAPABILITIES
from meshd.runtime.swarm.setup.migration import MigrationFacts, plan_migration
from meshd.spec.model import Mount, Network, Project, PublishedPort, Service

DATA = Mount(type="volume", source="data", target="/data")
FOLDER = Mount(type="bind", source="/srv/site", target="/site", read_only=True)
CONFIG = Mount(type="bind", source="/srv/a.conf", target="/a.conf", version="abc")
TMP = Mount(type="tmpfs", target="/tmp")
NFS = Mount(
    type="volume", source="data", target="/data", volume_driver="local",
    volume_options={"type": "nfs", "device": ":/x"},
)  # fmt: skip
OTHER_DRIVER = Mount(type="volume", source="data", target="/data", volume_driver="rexray")


def service(name: str = "db", **fields: Any) -> Service:
    return Service(**{"name": name, "image": "x:1", "plain": True, **fields})


def facts(*services: Service, **fields: Any) -> MigrationFacts:
    project = Project(name="shop", services=services, networks=fields.pop("networks", ()))
    given = {"can": CAPABILITIES, "node": "m1", "nodes": ("m1",), "on_engine": {}, **fields}
    return MigrationFacts(projects=[project], **given)


@pytest.mark.parametrize(
    ("mounts", "placement", "moved", "reason"),
    [
        ((), (), (), None),
        ((CONFIG, TMP), (), (), None),
        ((NFS,), (), (), None),
        ((OTHER_DRIVER,), (), (), None),
        ((DATA,), (), (), "volume shop_data is on m1; to move it within this host"),
        ((FOLDER,), (), (), "the directory /srv/site is on m1"),
        ((DATA,), ("node.hostname==m1",), (), None),
        ((DATA,), ("node.hostname == m1",), (), None),
        (
            (DATA,),
            ("node.hostname==w1",),
            (),
            "is to run on w1: `meshd scale db=0`, meshd volume copy shop_data HOST, then repeat "
            "with --data-moved db",
        ),
        ((DATA,), ("node.hostname==w1",), ("db",), None),
        ((DATA,), ("node.hostname==w1",), ("shop/db",), None),
        ((DATA,), (), ("db",), "add the constraint node.hostname==m1"),
    ],
)
def test_a_service_with_data_of_the_host_stays(
    mounts: tuple[Mount, ...],
    placement: tuple[str, ...],
    moved: tuple[str, ...],
    reason: str | None,
) -> None:
    given = facts(service(volumes=mounts, placement=placement), data_moved=moved)
    plan = plan_migration(given)
    assert plan.problems == ()
    if reason is None:
        assert [each.key for each in plan.moving] == ["shop/db"]
        assert plan.staying_keys == ()
    else:
        (stays,) = plan.staying
        assert reason in stays.reason
        assert plan.moving == ()


def test_a_service_with_an_anonymous_volume_stays() -> None:
    """Also where it is pinned: a task gets a new one. The volume may be that of the image."""
    here = {"shop/db": ("/var/lib/db",)}
    pinned = service(placement=("node.hostname==m1",))
    (stays,) = plan_migration(facts(pinned, anonymous=here)).staying
    assert stays.reason.startswith("the anonymous volume at /var/lib/db is on m1")
    assert plan_migration(facts(pinned, anonymous=here, data_moved=["db"])).staying == ()


PORT = PublishedPort(target=80, published="8090")


@pytest.mark.parametrize(
    ("fields", "nodes", "stays"),
    [
        ({"ports": (PORT,)}, ("m1", "w1"), True),
        ({"ports": (PORT,)}, ("m1",), False),
        ({"ports": (PORT,), "placement": ("node.role==worker",)}, ("m1", "w1"), False),
        ({"ports": (PORT,), "plain": False}, ("m1", "w1"), False),  # the mesh opens it
        ({"ports": (PublishedPort(target=80),)}, ("m1", "w1"), False),
    ],
)
def test_a_port_of_the_host_stays_unless_the_node_is_chosen(
    fields: dict[str, Any], nodes: tuple[str, ...], stays: bool
) -> None:
    plan = plan_migration(facts(service(**fields), nodes=nodes))
    assert bool(plan.staying) == stays
    if stays:
        assert "publishes 8090" in plan.staying[0].reason


def test_adopted_containers_stay() -> None:
    plan = plan_migration(facts(service(), adopted={"shop/db"}))
    assert "started by something else" in plan.staying[0].reason


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (facts(service(), rolling={"shop/db"}),
         "shop/db: its rollout is not over"),
        (facts(service(), data_moved=["none"]), "--data-moved none: there is no such service"),
        (
            facts(service(networks=("n",)), networks=(Network(name="n", driver="macvlan"),)),
            "shop/db: network n has the driver macvlan",
        ),
        (
            facts(
                service(plain=False, networks=("n",)), networks=(Network(name="n", internal=True),)
            ),
            "shop/db: all its networks are internal",
        ),
        (facts(service(security_opt=("a",))), "shop/db: security_opt"),
    ],
)  # fmt: skip
def test_what_prevents_a_migration(given: MigrationFacts, problem: str) -> None:
    problems = plan_migration(given).problems
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_notes_name_images_that_other_nodes_lack() -> None:
    local = service("api", plain=False, image_id="a" * 64)
    pushed = service("web", plain=False, image_id="a" * 64, image_digest="sha256:" + "b" * 64)
    plan = plan_migration(facts(local, pushed, nodes=("m1", "w1"), on_engine={"shop/api": 2}))
    api, web = plan.moving
    assert (api.replicas, web.replicas) == (2, 0)
    assert api.notes == ("no registry has x:1: `meshd node load` it on w1",)
    assert web.notes == ()


def test_names_that_a_swarm_does_not_accept_prevent_a_migration() -> None:
    """An overlay next to a network of the engine has a longer name."""
    web = service("web.api", networks=("n" * 52,))
    first, second = plan_migration(facts(web)).problems
    assert first.startswith("shop: services.web.api: its replicas")
    assert "shop_" + "n" * 52 + "__swarm, and a Swarm accepts at most 63 characters" in second
    assert plan_migration(facts(service("web", networks=("n" * 51,)))).problems == ()


def test_files_that_a_swarm_does_not_accept_prevent_a_migration() -> None:
    given = facts(service("web"), files={"shop/web": ["/srv/a.conf is empty"], "other/web": ["x"]})
    assert plan_migration(given).problems == ("shop/web: /srv/a.conf is empty",)
