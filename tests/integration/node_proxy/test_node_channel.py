"""The encrypted channel between the control process and the proxies of other nodes, over real
sockets: who is let in, and what happens when one side is gone."""

import asyncio
import contextlib
import os
import random
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.cli.node_join import ensure_joined
from meshd.model.errors import NotFound, Rejected
from meshd.model.event import Kind
from meshd.node_proxy import agent as agent_module
from meshd.node_proxy import authority as authority_module
from meshd.node_proxy import server as server_module
from meshd.node_proxy.agent import Agent
from meshd.node_proxy.authority import (
    CLOCK_SKEW,
    MeshAuthority,
    client_context,
    make_authority,
    new_request,
)
from meshd.node_proxy.enrollment import (
    IDENTITY_FILE,
    JoinFailed,
    NodeIdentity,
    join,
    load_identity,
    open_connection,
    store_identity,
)
from meshd.node_proxy.identity import CONTROL_NAME, PeerIdentity, PeerRole
from meshd.node_proxy.join_token import read_text
from meshd.node_proxy.protocol import (
    MAX_NODE_MESSAGE,
    CertificateIssued,
    FeedBytes,
    JoinRequest,
    KeepAlive,
    NodeMessage,
    NodeRefused,
    ProtocolError,
    RenewRequest,
    encode_feed,
    encode_message,
    read_message,
)
from proxy.peer.files import AUTHORITY_FILE, CERTIFICATE_FILE, read_node
from proxy.transport.upstream_tls import make_context
from proxy.wire.report import Listening, Peer
from proxy.wire.snapshot import Generation, Snapshot, UpstreamTls
from tests.support.node_scene import Leader, Node, snapshot
from tests.support.ports import free_port
from tests.support.waiting import stays, wait_until


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[Leader]:
    made = Leader(tmp_path / "leader")
    yield made
    made.store.close()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "node")


async def joined(leader: Leader, node: Node, name: str = "n1") -> NodeIdentity:
    token = read_text(leader.server.make_token(60.0, "me").secret)
    return await join(leader.address, token, name, node.folder)


async def raw_answer(
    leader: Leader, context: ssl.SSLContext, *messages: NodeMessage
) -> NodeMessage | None:
    """Return the first answer to a client with other TLS settings."""
    reader, writer = await open_connection(leader.address, context)
    try:
        for message in messages:
            writer.write(encode_message(message))
        return await read_message(reader)
    finally:
        writer.transport.abort()


async def refused_answer(
    leader: Leader, context: ssl.SSLContext, message: NodeMessage
) -> NodeMessage | None:
    """Return the answer to a client that TLS should refuse; None if there is none."""
    try:
        return await raw_answer(leader, context, message)
    except OSError:
        return None


async def test_a_node_joins_gets_snapshots_and_is_shown(leader: Leader, node: Node) -> None:
    async with leader.server.serve():
        leader.publisher.publish(snapshot("a"))
        identity = await joined(leader, node)
        assert load_identity(node.folder) == identity
        assert (node.folder / IDENTITY_FILE).stat().st_mode & 0o777 == 0o600
        async with node.running(identity, leader.address):
            await wait_until(lambda: node.names() == ["shop/a"])
            leader.publisher.publish(snapshot("a", "b"))
            await wait_until(lambda: node.names() == ["shop/a", "shop/b"])
            leader.publisher.publish(snapshot("b", size=900_000))  # more than one message
            await wait_until(lambda: node.names() == ["shop/b"])
            await wait_until(lambda: leader.server.status()[0].state == "connected")
            (shown,) = leader.server.status()
            assert (shown.name, shown.generation, shown.workers) == ("n1", (1, 3), 1)
            assert leader.proxies.is_drained("a", Generation(1, 3))
            leader.server.remove("n1", "me")
            leader.publisher.publish(snapshot("c"))
            await stays(lambda: node.names() == ["shop/b"], 0.5, "it is cut off")
    assert leader.server.status() == []
    assert leader.kinds()[:2] == [Kind.NODE_JOINED, Kind.NODE_PROXY_CONNECTED]
    assert leader.kinds()[-1] is Kind.NODE_REMOVED
    with pytest.raises(NotFound, match="no proxy of a node 'n1' has joined"):
        leader.server.remove("n1", "me")


async def test_nodes_report_how_busy_they_are(
    leader: Leader, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (agent_module, server_module):
        monkeypatch.setattr(module, "KEEP_ALIVE_SECONDS", 0.05)
    async with leader.server.serve():
        identity = await joined(leader, node)
        async with node.running(identity, leader.address):
            await wait_until(
                lambda: leader.loads.of("n1") is not None, 10.0, "the load of the node"
            )
        await wait_until(lambda: leader.loads.of("m1") is not None, 10.0, "that of the leader")


async def test_a_refused_peer_that_never_reads_is_disconnected(
    leader: Leader, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "FINISH_SECONDS", 0.05)
    async with leader.server.serve():
        identity = await joined(leader, node)
        leader.server.remove("n1", "me")
        context = identity.context(node.folder)

        def connect() -> ssl.SSLSocket:
            bare = socket.create_connection(("127.0.0.1", leader.port))
            return context.wrap_socket(bare, server_hostname=CONTROL_NAME)

        with await asyncio.to_thread(connect):  # it answers nothing, and does not close
            await wait_until(lambda: not leader.server._sessions, 5.0, "the connection ended")


async def test_who_has_no_certificate_of_this_mesh_gets_nothing(
    leader: Leader, node: Node, tmp_path: Path
) -> None:
    other = MeshAuthority(*make_authority(time.time()))
    async with leader.server.serve():
        identity = await joined(leader, node)
        request = JoinRequest("n2", "x")
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        bare.load_verify_locations(cadata=leader.authority.certificate)
        foreign = client_context(
            leader.authority.certificate, "".join(other.issue_join("t", time.time(), 60)), tmp_path
        )
        for context in (bare, foreign):
            assert await refused_answer(leader, context, request) is None
        # The node notices as well if the control process belongs to another mesh.
        wrong = NodeIdentity(identity.key, identity.certificate, other.certificate)
        with pytest.raises(ssl.SSLCertVerificationError):
            await raw_answer(leader, wrong.context(tmp_path), request)
        old = client_context(leader.authority.certificate, identity.key + identity.certificate,
                             tmp_path)  # fmt: skip
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert await refused_answer(leader, old, request) is None
    assert leader.kinds() == [Kind.NODE_JOINED]


async def test_a_node_is_no_control_process(leader: Leader, node: Node, tmp_path: Path) -> None:
    """A node that was broken into cannot pose as the control process for others."""
    async with leader.server.serve():
        identity = await joined(leader, node)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (tmp_path / "chain.pem").write_text(identity.key + identity.certificate)
    server.load_cert_chain(tmp_path / "chain.pem")
    accepted: list[asyncio.StreamWriter] = []
    listening = await asyncio.start_server(
        lambda _, writer: accepted.append(writer), "127.0.0.1", 0, ssl=server
    )
    try:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(ssl.SSLCertVerificationError):
            await open_connection(f"127.0.0.1:{port}", identity.context(tmp_path))
    finally:
        listening.close()
        for writer in accepted:
            writer.transport.abort()


async def test_a_token_is_for_one_node_and_a_short_time(leader: Leader, node: Node) -> None:
    async with leader.server.serve():
        token = read_text(leader.server.make_token(60.0, "me").secret)
        with pytest.raises(JoinFailed, match="'N 1' is not a valid name of a node"):
            await join(leader.address, token, "N 1", node.folder)
        await join(leader.address, token, "n1", node.folder)
        with pytest.raises(JoinFailed, match="used or has expired; make another one"):
            await join(leader.address, token, "n2", node.folder)
        again = read_text(leader.server.make_token(60.0, "me").secret)
        with pytest.raises(JoinFailed, match="node n1 has joined already; remove it"):
            await join(leader.address, again, "n1", node.folder)
        await join(leader.address, again, "n2", node.folder)  # it was not used up
        late = read_text(leader.server.make_token(-1.0, "me").secret)
        with pytest.raises(JoinFailed, match="the join token has expired; make another"):
            await join(leader.address, late, "n3", node.folder)
        context = client_context(late.authority, late.key + late.certificate, node.folder)
        assert await refused_answer(leader, context, JoinRequest("n3", new_request()[1])) is None
        assert [each.name for each in leader.server.status()] == ["n1", "n2"]
        assert "meshd-join" not in str(leader.events)
    with pytest.raises(JoinFailed, match="cannot join at"):
        await join(leader.address, again, "n4", node.folder)


async def test_a_removed_node_is_not_let_in_once_its_name_joins_again(
    leader: Leader, node: Node, tmp_path: Path
) -> None:
    """Its certificate has the name, is still valid, and was renewed at the last moment."""
    async with leader.server.serve():
        leader.publisher.publish(snapshot("a"))
        await joined(leader, node)
        key, request = new_request()
        me = PeerIdentity(PeerRole.NODE, "n1")
        issued = leader.authority.issue(me, request, time.time())
        stolen = NodeIdentity(key, issued, leader.authority.certificate)
        leader.server.remove("n1", "me")
        assert leader.proxies.valid_from == {}
        identity = await joined(leader, node)
        start = identity.validity()[0] - CLOCK_SKEW
        assert leader.proxies.valid_from == {"n1": start}, "for the proxies of other nodes"
        async with node.running(identity, leader.address):
            await wait_until(lambda: node.names() == ["shop/a"])
            answer = await raw_answer(leader, stolen.context(tmp_path))
            assert isinstance(answer, NodeRefused)
            assert "from before node n1 joined last" in answer.reason
            leader.publisher.publish(snapshot("b"))
            await wait_until(lambda: node.names() == ["shop/b"])
    assert leader.kinds().count(Kind.NODE_PROXY_CONNECTED) == 1, "it was not displaced"


async def test_a_node_that_was_removed_joins_again_with_a_new_token(
    leader: Leader, node: Node, tmp_path: Path
) -> None:
    """Its certificate is still valid. A service may give its first token at each start."""
    file = tmp_path / "token"

    async def start() -> str:
        """Return the name under which the node joins at a start, if it does."""
        return await asyncio.to_thread(
            ensure_joined, node.folder, [leader.address], str(file), "other"
        )

    async with leader.server.serve():
        identity = await joined(leader, node)
        assert await start() == "", "there is no token any more"
        file.write_text(leader.server.make_token(60.0, "me").secret)
        assert await start() == "", "it belongs to the mesh"
        leader.server.remove("n1", "me")
        assert await start() == "n1"
        again = load_identity(node.folder)
        assert again is not None
        assert again != identity
        answer = await raw_answer(leader, again.context(tmp_path))
        assert isinstance(answer, KeepAlive)
        assert await start() == "", "the token is used up"
        assert load_identity(node.folder) == again
        leader.server.remove("n1", "me")
        file.write_text(leader.server.make_token(-1.0, "me").secret)
        assert await start() == "", "the token has expired"


async def test_a_node_that_joined_may_renew_its_certificate_at_once(
    leader: Leader, node: Node, tmp_path: Path
) -> None:
    """Also if the clock of the leader that renews it is behind that of the one that it joined."""
    async with leader.server.serve():
        identity = await joined(leader, node)
        with leader.store.transaction() as database:
            ahead = time.time() + 60.0
            database.execute("UPDATE node_proxy SET joined = ?", (ahead,))
        key, request = new_request()
        me = PeerIdentity(PeerRole.NODE, "n1")
        issued = leader.authority.issue(me, request, ahead)
        identity = NodeIdentity(key, issued, identity.authority)
        reader, writer = await open_connection(leader.address, identity.context(tmp_path))
        try:
            key, request = new_request()
            writer.write(encode_message(RenewRequest(request)))
            while not isinstance(answer := await read_message(reader), CertificateIssued):
                assert isinstance(answer, KeepAlive)
        finally:
            writer.transport.abort()
        renewed = NodeIdentity(key, answer.certificate, identity.authority)
        answer = await raw_answer(leader, renewed.context(tmp_path))
        assert isinstance(answer, KeepAlive)


async def test_what_a_peer_may_not_send_ends_its_connection(
    leader: Leader, node: Node, tmp_path: Path
) -> None:
    async with leader.server.serve():
        identity = await joined(leader, node)
        context = identity.context(tmp_path)
        reader, writer = await open_connection(leader.address, context)
        try:
            writer.write(encode_message(JoinRequest("n9", "x")))
            while await read_message(reader) is not None:
                pass  # signs of life
        except OSError:
            pass
        finally:
            writer.transport.abort()
        token = read_text(leader.server.make_token(60.0, "me").secret)
        joining = client_context(token.authority, token.key + token.certificate, tmp_path)
        with contextlib.suppress(OSError):
            assert await raw_answer(leader, joining, FeedBytes(b"x")) is None
        answer = await raw_answer(leader, joining, JoinRequest("n3", "nonsense"))
        assert isinstance(answer, NodeRefused)
        assert "cannot be read" in answer.reason
        leader.leads = False
        answer = await raw_answer(leader, context)
        assert answer == NodeRefused("this control process does not lead")
        leader.leads = True
        leader.server.remove("n1", "me")
        answer = await raw_answer(leader, context)
        assert answer == NodeRefused("node n1 was removed; join again with a new token")
    assert [each.name for each in leader.server.status()] == []


async def test_an_agent_that_ends_twice_leaves_no_connection_open(
    leader: Leader, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped while it ends a connection."""
    ending = asyncio.Event()

    async def end_slowly(agent: Agent, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(Agent, "_send_signs_of_life", end_slowly)
    async with leader.server.serve():
        identity = await joined(leader, node)
        await node.feed.open(node.folder / "feed.sock")
        agent = Agent(node.folder, identity, [leader.address], random.Random(1))
        running = asyncio.create_task(agent.run())
        await wait_until(lambda: node.feed.connection_count == 1)
        leader.server.remove("n1", "me")
        await ending.wait()
        running.cancel()
        await asyncio.wait({running})
        await wait_until(lambda: node.feed.connection_count == 0)
        node.feed.close()


async def test_the_control_process_is_gone_and_comes_back(leader: Leader, node: Node) -> None:
    async with leader.server.serve():
        leader.publisher.publish(snapshot("a"))
        identity = await joined(leader, node)
        running = node.running(identity, leader.address)
        await running.__aenter__()
        await wait_until(lambda: node.names() == ["shop/a"])
    # Gone: the node keeps what it has.
    await stays(lambda: node.names() == ["shop/a"], 0.3, "it keeps its snapshot")
    leader.start(epoch=2)
    assert [each.state for each in leader.server.status()] == ["lost"]
    leader.publisher.publish(snapshot("a", "b"))
    async with leader.server.serve():
        await wait_until(lambda: node.names() == ["shop/a", "shop/b"], 10)
        await running.__aexit__(None, None, None)
    assert node.history == sorted(node.history)
    assert node.history[-1] == Generation(2, 1)


async def test_another_control_process_continues_above_what_the_node_has(
    leader: Leader, node: Node
) -> None:
    """It has another store, whose epochs are lower. The node never steps back."""
    node.snapshot = Snapshot(Generation(40, 7))
    async with leader.server.serve():
        identity = await joined(leader, node)
        leader.publisher.publish(snapshot("a"))
        async with node.running(identity, leader.address):
            await wait_until(lambda: node.names() == ["shop/a"])
            assert node.history == [Generation(41, 1)]
            leader.publisher.publish(snapshot("b"))
            await wait_until(lambda: node.names() == ["shop/b"])
    assert node.history == [Generation(41, 1), Generation(41, 2)]
    assert node.refused == []


async def test_of_several_managers_the_one_that_leads_is_used(
    leader: Leader, node: Node, tmp_path: Path
) -> None:
    leader.publisher.publish(snapshot("a"))
    async with leader.server.serve():
        identity = await joined(leader, node)
        nowhere = f"127.0.0.1:{free_port()}"
        async with node.running(identity, nowhere, leader.address):
            await wait_until(lambda: node.names() == ["shop/a"], 10)


async def test_certificates_are_renewed_without_a_cut(
    leader: Leader, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "RENEW_AFTER", -1.0)
    leader.publisher.publish(snapshot("a"))
    async with leader.server.serve():
        identity = await joined(leader, node)
        async with node.running(identity, leader.address):
            await wait_until(lambda: load_identity(node.folder) != identity, 10)
            leader.publisher.publish(snapshot("b"))
            await wait_until(lambda: node.names() == ["shop/b"])
        assert leader.kinds().count(Kind.NODE_PROXY_CONNECTED) == 1
        renewed = load_identity(node.folder)
        assert renewed is not None
        assert renewed.key != identity.key
        async with node.running(renewed, leader.address):
            await wait_until(lambda: leader.kinds().count(Kind.NODE_PROXY_CONNECTED) == 2)


async def test_proxies_have_certificates_for_each_other(
    leader: Leader, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the leader's own host and of a node, which is renewed; and the leader knows their
    ports, also after it started again, until the node is removed."""
    monkeypatch.setattr(agent_module, "RENEW_AFTER", -1.0)
    leader.publisher.publish(snapshot("a"))
    own, other = leader.folder / CERTIFICATE_FILE, node.folder / CERTIFICATE_FILE
    async with leader.server.serve():
        await wait_until(own.exists)
        leader.proxies.take_local(Listening({}, Peer("m1", 15778)))
        identity = await joined(leader, node, "w1")
        node.peer = Peer("w1", 15779)
        async with node.running(identity, leader.address):
            await wait_until(lambda: leader.proxies.peers == {"m1": 15778, "w1": 15779})
            await wait_until(lambda: load_identity(node.folder) != identity, 10)
            renewed = load_identity(node.folder)
            assert renewed is not None
            assert other.read_text() == f"node: w1\n{renewed.key}{renewed.certificate}"
    assert [read_node(str(each)) for each in (own, other)] == ["m1", "w1"]
    assert other.stat().st_mode & 0o777 == 0o600
    authority = (node.folder / AUTHORITY_FILE).read_text()
    for folder in (leader.folder, node.folder):
        settings = UpstreamTls(str(folder / AUTHORITY_FILE), cert=str(folder / CERTIFICATE_FILE))
        assert make_context(settings).cert_store_stats()["x509_ca"] == 1
    assert authority == leader.authority.certificate
    leader.start(2, Snapshot(Generation(1, 1), peers=leader.proxies.peers))
    async with leader.server.serve():
        assert leader.proxies.peers == {"m1": 15778, "w1": 15779}
        leader.server.remove("w1", "a test")
        assert leader.proxies.peers == {"m1": 15778}


async def test_an_identity_without_a_name_for_its_proxy_is_renewed(
    leader: Leader, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of an earlier version."""
    names = authority_module.to_dns_names
    monkeypatch.setattr(authority_module, "to_dns_names", lambda identity: names(identity)[:1])
    leader.publisher.publish(snapshot("a"))
    async with leader.server.serve():
        identity = await joined(leader, node)
        assert not identity.peer_name()
        monkeypatch.setattr(authority_module, "to_dns_names", names)
        async with node.running(identity, leader.address):
            await wait_until((node.folder / CERTIFICATE_FILE).exists, 10)


async def test_a_node_without_its_supervisor_tries_again(leader: Leader, node: Node) -> None:
    leader.publisher.publish(snapshot("a"))
    async with leader.server.serve():
        identity = await joined(leader, node)
        agent = Agent(node.folder, identity, [leader.address], random.Random(1))
        task = asyncio.create_task(agent.run())
        await stays(lambda: not task.done(), 0.3, "it tries again")
        await node.feed.open(node.folder / "feed.sock")
        await wait_until(lambda: node.names() == ["shop/a"], 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        node.feed.close()


def test_a_damaged_identity_is_named(tmp_path: Path) -> None:
    assert load_identity(tmp_path) is None
    for text in ("", "key", "key-----BEGIN CERTIFICATE-----x-----BEGIN CERTIFICATE-----y"):
        (tmp_path / IDENTITY_FILE).write_text(text)
        with pytest.raises(JoinFailed, match="is damaged"):
            load_identity(tmp_path)
    store_identity(tmp_path, NodeIdentity("k", "c", "a"))
    assert sorted(os.listdir(tmp_path)) == [IDENTITY_FILE]


async def test_messages_that_are_none_are_refused() -> None:
    for data in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\xc1", encode_feed(b"x")[:4] + b"no" * 50):
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        with pytest.raises(ProtocolError):
            await read_message(reader)
    assert len(encode_feed(b"x" * MAX_NODE_MESSAGE)) > MAX_NODE_MESSAGE


async def test_a_leader_that_may_not_act_feeds_no_node(
    leader: Leader, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "KEEP_ALIVE_SECONDS", 0.05)
    leader.publisher.publish(snapshot("a"))
    async with leader.server.serve():
        identity = await joined(leader, node)
        async with node.running(identity, leader.address):
            await wait_until(lambda: node.names() == ["shop/a"])
            leader.leads = False
            await wait_until(lambda: leader.server.status()[0].state == "lost")
            leader.publisher.publish(snapshot("b"))
            await stays(lambda: node.names() == ["shop/a"], 0.3, "it keeps its snapshot")
            leader.leads = True
            await wait_until(lambda: node.names() == ["shop/b"], 10)


async def test_an_address_in_use_is_tried_again(leader: Leader) -> None:
    with socket.create_server(("127.0.0.1", leader.port)):
        async with leader.server.serve():
            with pytest.raises(Rejected, match="cannot listen at"):
                leader.server.make_token(60.0, "me")
            await stays(lambda: leader.kinds() == [Kind.LISTEN_FAILED], 1.2, "it is said once")
    async with leader.server.serve():
        assert leader.server.make_token(60.0, "me").port == leader.port
