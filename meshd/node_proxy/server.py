"""The control process's port for the proxies of other nodes.

Made and run by `meshd.daemon.wiring`. TLS 1.3 with a certificate of this mesh is required before a
byte is read. A join token gets one certificate; a node gets snapshots, and its messages go to
`proxies`.
"""

import asyncio
import contextlib
import math
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from meshd.api.server import bind_tcp
from meshd.api.tcp_address import ServeError
from meshd.model.errors import NotFound, Rejected, StoreWriteError
from meshd.model.event import Kind
from meshd.model.node_proxy import NewJoinToken, NodeLoad, NodeProxyStatus
from meshd.node_proxy.authority import (
    RENEW_AFTER,
    BadRequest,
    MeshAuthority,
    earliest_start,
    new_request,
    read_validity,
)
from meshd.node_proxy.host_load import HostLoad
from meshd.node_proxy.identity import PeerIdentity, PeerRole, is_node_name, read_identity
from meshd.node_proxy.join_token import JoinToken, to_text
from meshd.node_proxy.protocol import (
    KEEP_ALIVE_SECONDS,
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
from meshd.node_proxy.proxies import NodeProxies
from meshd.node_proxy.table import NodeProxyTable
from proxy.peer.files import write_files
from proxy.peer.protocol import read_valid_from
from proxy.wire.codec import BadFrame, Decoder
from proxy.wire.snapshot import Generation

_log = structlog.stdlib.get_logger(__name__)
HANDSHAKE_SECONDS: Final = 5.0
"""Seconds for the TLS handshake of a node: some round trips."""
MAX_UNSENT: Final = 64 * 1024 * 1024
"""Bytes that may wait to be sent to a node; more means that it does not read."""
FINISH_SECONDS: Final = 5.0
"""Seconds for the last bytes of a connection, and for the peer to agree to its end."""
LISTEN_PAUSE: Final = 0.5
"""Seconds between two attempts to open the address."""
TOKEN_ID_BYTES: Final = 8
"""Random bytes of a token's id, which may be shown: the secret is its key."""


class NodeServer:
    """The port for nodes. Arguments:

    - `address`: `HOST:PORT`; `folder`: directory for temporary files.
    - `raise_above`: makes the current snapshot newer than a generation.
    - `leads`: whether this control process may act.
    - `own_node`: returns the node of this process; empty while it is not known.
    - `note_load`: takes the load of a node, by its name.
    - `record`: records an event; `now`: Unix time.
    """

    def __init__(
        self,
        address: str,
        folder: Path,
        authority: MeshAuthority,
        table: NodeProxyTable,
        proxies: NodeProxies,
        raise_above: Callable[[Generation], None],
        leads: Callable[[], bool],
        own_node: Callable[[], str],
        note_load: Callable[[str, NodeLoad], None],
        record: Callable[[Kind, str], object],
        now: Callable[[], float],
    ) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._problem = ""
        self._address = address
        self._folder = folder
        self._authority = authority
        self._table = table
        self._proxies = proxies
        self._raise_above = raise_above
        self._leads = leads
        self._own_node = own_node
        self._note_load = note_load
        self._record = record
        self._now = now
        self._writers: dict[str, asyncio.StreamWriter] = {}
        self._sessions: set[asyncio.Task[None]] = set()
        proxies.expect(table.nodes())
        self._note_validity()

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Accept nodes until the end of the block. While something else holds the address, such as
        a leader before that hangs, it is tried again. Raises OSError."""
        context = self._authority.server_context(self._folder, self._now())
        running = [
            asyncio.create_task(self._listen(context)),
            asyncio.create_task(self._renew(context)),
            asyncio.create_task(self._certify_own_proxy()),
            asyncio.create_task(self._note_own_load()),
        ]
        try:
            await self._begin_listening(context)
            yield
        finally:
            if self._server is not None:
                self._server.close()
            for task in (*running, *self._sessions):
                task.cancel()
            await asyncio.gather(*running, *self._sessions, return_exceptions=True)

    async def _begin_listening(self, context: ssl.SSLContext) -> None:
        """Try to open the address; record an event at the first failure."""
        try:
            sock = bind_tcp(self._address, "the proxies of nodes")
        except ServeError as error:
            if not self._problem:
                self._record(Kind.LISTEN_FAILED, str(error))
            self._problem = str(error)
            return
        self.port = int(sock.getsockname()[1])
        self._server = await asyncio.start_server(
            self._accept, sock=sock, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS
        )

    async def _listen(self, context: ssl.SSLContext) -> None:
        """Try again until the address is open."""
        while True:
            await asyncio.sleep(LISTEN_PAUSE)
            if self._server is not None:
                return
            await self._begin_listening(context)

    async def _note_own_load(self) -> None:
        """Note the load of this host, which has no agent."""
        host = HostLoad()
        while True:
            load, node = host.read(), self._own_node()
            if load is not None and node:
                self._note_load(node, load)
            await asyncio.sleep(KEEP_ALIVE_SECONDS)

    def make_token(self, seconds: float, who: str) -> NewJoinToken:
        """Return a new join token. Raises Rejected, StoreWriteError."""
        if not self.port:
            raise Rejected(self._problem or "the port for proxies of nodes is not open yet")
        now = self._now()
        id = secrets.token_hex(TOKEN_ID_BYTES)
        self._table.add_token(id, now + seconds, now)
        key, certificate = self._authority.issue_join(id, now, seconds)
        text = to_text(JoinToken(self._authority.certificate, certificate, key))
        _log.info("join token made", id=id, by=who)
        return NewJoinToken(text, now + seconds, self.port)

    def remove(self, node: str, who: str) -> None:
        """Disconnect a node that joined, and refuse it from now on. Raises NotFound,
        StoreWriteError."""
        if not self._table.remove(node):
            raise NotFound(f"no proxy of a node {node!r} has joined")
        writer = self._writers.pop(node, None)
        if writer is not None:
            writer.transport.abort()
        self._proxies.forget(node)
        self._note_validity()
        self._record(Kind.NODE_REMOVED, f"the proxy of node {node} was removed by {who}")

    def _note_validity(self) -> None:
        """Let proxies refuse certificates from before a node joined."""
        joined = self._table.joined().items()
        self._proxies.note_validity({name: earliest_start(at) for name, at in joined})

    def status(self) -> "list[NodeProxyStatus]":
        """Return the proxies of all nodes by name."""
        return list(self._proxies.status())

    async def _renew(self, context: ssl.SSLContext) -> None:
        """Renew the certificate of the control process; open connections stay."""
        while True:
            await asyncio.sleep(RENEW_AFTER)
            try:
                self._authority.renew_server(context, self._folder, self._now())
            except OSError as error:
                _log.error("the certificate for nodes was not renewed", reason=str(error))

    async def _certify_own_proxy(self) -> None:
        """Issue the certificate with which the proxy of this host connects to those of nodes, and
        renew it."""
        while True:
            node = self._own_node()
            if node:
                self._issue_own(PeerIdentity(PeerRole.MANAGER, node.lower()))
            await asyncio.sleep(RENEW_AFTER if node else LISTEN_PAUSE)

    def _issue_own(self, identity: PeerIdentity) -> None:
        key, request = new_request()
        try:
            issued = self._authority.issue(identity, request, self._now())
            write_files(self._folder, identity.name, key + issued, self._authority.certificate)
        except OSError as error:
            _log.error("the certificate of the proxy was not stored", reason=str(error))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._run_session(reader, writer))
        self._sessions.add(task)

        def end(ended: asyncio.Task[None]) -> None:
            self._sessions.discard(ended)
            writer.transport.abort()

        task.add_done_callback(end)

    async def _run_session(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await self._serve_peer(reader, writer)
        except (OSError, TimeoutError, ssl.SSLError, ProtocolError, BadFrame) as error:
            _log.info("connection of a node ended", reason=str(error) or type(error).__name__)

    async def _serve_peer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("peercert")
        identity = read_identity(certificate)
        if identity is None:
            await _refuse(writer, "this certificate is not that of a node")
        elif not self._leads():
            await _refuse(writer, "this control process does not lead")
        elif identity.role is PeerRole.JOIN:
            await self._join(identity.name, reader, writer)
        elif identity.role is PeerRole.NODE and (reason := self._refusal(identity, certificate)):
            await _refuse(writer, reason)
        else:
            await self._serve_node(identity, reader, writer)

    def _refusal(self, identity: PeerIdentity, certificate: Mapping[str, Any]) -> str:
        """Return why a node is not served; empty if it is."""
        joined = self._table.joined().get(identity.name)
        if joined is None:
            return f"node {identity.name} was removed; join again with a new token"
        if read_valid_from(certificate) < earliest_start(joined):
            return (
                f"this certificate is from before node {identity.name} joined last; remove the "
                "node, and join again with a new token"
            )
        return ""

    async def _join(
        self, token: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Issue the certificate of a node, once for a token."""
        message = await read_message(reader)
        if not isinstance(message, JoinRequest):
            raise ProtocolError("a join token may only ask to join")
        # The next full second: certificates have no fractions, and those that were issued before
        # this moment, to a node of this name that was removed, are refused.
        name, now = message.name, math.floor(self._now()) + 1.0
        if not is_node_name(name):
            await _refuse(writer, f"{name[:80]!r} is not a valid name of a node")
            return
        try:
            issued = self._authority.issue(PeerIdentity(PeerRole.NODE, name), message.request, now)
            self._table.join(token, name, now)
        except (BadRequest, Rejected, StoreWriteError) as error:
            await _refuse(writer, str(error))
            return
        self._proxies.expect([name])
        self._note_validity()
        self._record(Kind.NODE_JOINED, f"node {name} joined with token {token}")
        writer.write(encode_message(CertificateIssued(issued)))
        await _finish(writer)

    async def _serve_node(
        self, identity: PeerIdentity, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve a node until its connection or its certificate ends."""
        name, decoder, reason = identity.name, Decoder(), "the connection ended"
        before = self._writers.get(name)
        if before is not None:
            before.transport.abort()
        self._writers[name] = writer
        ends = asyncio.get_running_loop().call_later(
            self._remaining(writer), writer.transport.abort
        )

        def send(data: bytes) -> None:
            writer.write(encode_feed(data))
            if writer.transport.get_write_buffer_size() > MAX_UNSENT:
                _log.warning("node does not read, so its connection is closed", node=name)
                writer.transport.abort()

        signs = asyncio.create_task(self._send_signs_of_life(writer))
        self._proxies.connect(name, _peer_address(writer), send)
        try:
            while (message := await read_message(reader)) is not None:
                match message:
                    case FeedBytes(data=data):
                        for each in decoder.feed(data):
                            held = self._proxies.held_above(name, each)
                            if held is not None and self._leads():
                                self._raise_above(held)
                            self._proxies.handle(name, each)
                    case RenewRequest(request=request):
                        joined = self._table.joined().get(name, 0.0)
                        issued = self._authority.issue(identity, request, max(self._now(), joined))
                        writer.write(encode_message(CertificateIssued(issued)))
                        ends.cancel()
                        _, until = read_validity(issued)
                        ends = asyncio.get_running_loop().call_later(
                            until - self._now(), writer.transport.abort
                        )
                    case KeepAlive(load=load):
                        if load is not None:
                            self._note_load(name, load)
                    case _:
                        raise ProtocolError(f"a node may not send {type(message).__name__}")
        except TimeoutError:
            reason = "it was silent"
        except (OSError, ProtocolError, BadFrame, BadRequest) as error:
            reason = str(error) or type(error).__name__
        finally:
            ends.cancel()
            signs.cancel()
            if self._writers.get(name) is writer:
                del self._writers[name]
            self._proxies.disconnect(name, send, reason)
            await asyncio.gather(signs, return_exceptions=True)

    async def _send_signs_of_life(self, writer: asyncio.StreamWriter) -> None:
        """Send signs of life as long as this process may act. A leader on the minority side of a
        partition feeds no node: its snapshots may lack what others see."""
        while self._leads():
            writer.write(encode_message(KeepAlive()))
            await asyncio.sleep(KEEP_ALIVE_SECONDS)
        await _refuse(writer, "this control process does not lead any more")

    def _remaining(self, writer: asyncio.StreamWriter) -> float:
        """Return for how many seconds the certificate of a peer is still valid."""
        text = str((writer.get_extra_info("peercert") or {})["notAfter"])
        return ssl.cert_time_to_seconds(text) - self._now()


async def _refuse(writer: asyncio.StreamWriter, reason: str) -> None:
    message: NodeMessage = NodeRefused(reason)
    writer.write(encode_message(message))
    await _finish(writer)


async def _finish(writer: asyncio.StreamWriter) -> None:
    """Send what is queued, and close the connection in order; at once if the peer does not read."""
    writer.close()
    try:
        async with asyncio.timeout(FINISH_SECONDS):
            await writer.wait_closed()
    except TimeoutError:
        writer.transport.abort()


def _peer_address(writer: asyncio.StreamWriter) -> str:
    name = writer.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) else ""
