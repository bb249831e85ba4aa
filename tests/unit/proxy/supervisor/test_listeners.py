"""The listening addresses of a supervisor."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.ipc.config import PeerConfig
from proxy.peer.files import peer_config, write_files
from proxy.supervisor.listeners import Listeners
from proxy.wire.report import Peer
from proxy.wire.snapshot import Generation, Snapshot
from tests.support.peer_scene import Mesh

NOTHING = Snapshot(Generation())


@pytest.fixture
def config(tmp_path: Path) -> PeerConfig:
    return peer_config(tmp_path, "127.0.0.1:0")


@pytest.fixture
def listeners(config: PeerConfig) -> Iterator[Listeners]:
    made = Listeners((), (), 1, config)
    made.sync(NOTHING)
    yield made
    made.close()


def test_the_port_for_other_proxies_opens_with_its_certificate(
    listeners: Listeners, config: PeerConfig, tmp_path: Path
) -> None:
    assert not listeners.is_peer_due
    assert listeners.listening_message().peer is None
    issued = Path(Mesh(tmp_path / "mesh").enroll("w1").certificate)
    authority = (issued.parent / Path(config.authority).name).read_text()
    write_files(tmp_path, "w1", issued.read_text().partition("\n")[2], authority)
    assert listeners.is_peer_due
    assert listeners.listening_message().peer == Peer("w1", 0)
    listeners.sync(NOTHING)
    assert not listeners.is_peer_due
    peer = listeners.listening_message().peer
    assert peer is not None
    assert peer.name == "w1"
    assert peer.port > 0
    ((listener, _),) = listeners.open.values()
    assert listener.kind == "peer"
    assert listener.tls is not None
    assert (listener.tls.client, listener.tls.minimum) == ("required", "1.3")


def test_a_certificate_that_cannot_be_used_is_named(
    listeners: Listeners, config: PeerConfig, tmp_path: Path
) -> None:
    write_files(tmp_path, "w1", "no certificate", "no authority")
    listeners.sync(NOTHING)
    assert listeners.listening_message().peer == Peer("w1", 0)
    assert "has no certificate" in listeners.listen_errors[config.listen]
