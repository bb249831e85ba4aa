"""On a node: connects the feed of the proxy's supervisor to the control process of the mesh.

`python -m meshd.node_proxy` runs it as a child of the supervisor, in place of a control process. It
passes the bytes of the feed on in both directions and decides nothing: the supervisor refuses a
snapshot that is not newer than its own, keeps the last one on disk, and serves on while the control
process cannot be reached.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from meshd.node_proxy.authority import RENEW_AFTER, new_request
from meshd.node_proxy.enrollment import (
    NodeIdentity,
    Refused,
    describe_error,
    open_connection,
    store_identity,
)
from meshd.node_proxy.host_load import HostLoad
from meshd.node_proxy.protocol import (
    CHUNK,
    KEEP_ALIVE_SECONDS,
    CertificateIssued,
    FeedBytes,
    KeepAlive,
    NodeRefused,
    ProtocolError,
    RenewRequest,
    encode_feed,
    encode_message,
    read_message,
)
from proxy.peer.files import write_files
from proxy.wire.codec import encode
from proxy.wire.report import Hello

_log = structlog.stdlib.get_logger(__name__)
FIRST_PAUSE: Final = 0.2
"""Seconds before the first attempt to connect again: a control process that restarts is back in
about a second."""
LONGEST_PAUSE: Final = 5.0
"""Seconds between two attempts, at most: soon enough after an outage, and little load for the
control process of a hundred nodes."""


class Agent:
    """The connection of one node. `managers`: addresses of control processes; the first that serves
    this node is used. `now` returns Unix time. `keep` stores a renewed identity."""

    def __init__(
        self,
        state: Path,
        identity: NodeIdentity,
        managers: Sequence[str],
        dice: random.Random,
        now: Callable[[], float] = time.time,
        keep: Callable[[Path, NodeIdentity], None] = store_identity,
    ) -> None:
        self._keep = keep
        self._state = state
        self._identity = identity
        self._managers = managers
        self._dice = dice
        self._now = now
        self._load = HostLoad()
        self._next_key = ""
        self._logged = ""

    async def run(self) -> None:
        """Stay connected until cancelled."""
        pause = FIRST_PAUSE
        self._write_peer_files()
        while True:
            for manager in self._managers:
                started = asyncio.get_running_loop().time()
                reason = await self._connect(manager)
                if reason != self._logged:
                    _log.warning("not connected", manager=manager, reason=reason)
                    self._logged = reason
                if asyncio.get_running_loop().time() - started > LONGEST_PAUSE:
                    pause = FIRST_PAUSE
            await asyncio.sleep(pause * self._dice.uniform(0.5, 1.0))  # not all nodes at once
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _connect(self, manager: str) -> str:
        """Pass messages on until the connection ends. Return why it did."""
        self._next_key = ""
        if self._identity.validity()[1] < self._now():
            name = self._identity.peer_name() or "NAME"
            return (
                f"the certificate of this node has expired; run `meshd node remove {name}` on the "
                "host of meshd, and join again with a new token"
            )
        try:
            context = self._identity.context(self._state)
            reader, writer = await open_connection(manager, context)
        except (OSError, TimeoutError) as error:
            return describe_error(error)
        try:
            return await self._connect_feed(manager, reader, writer)
        finally:
            writer.transport.abort()

    async def _connect_feed(
        self, manager: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> str:
        """Connect to the supervisor, and pass messages on. Return why that ended."""
        try:
            path = str(self._state / "feed.sock")
            feed_reader, feed_writer = await asyncio.open_unix_connection(path)
        except OSError as error:
            return f"the supervisor of the proxy does not answer: {error.strerror}"
        feed_writer.write(encode(Hello(role="control")))
        tasks = [
            asyncio.create_task(self._receive(reader, writer, feed_writer, manager)),
            asyncio.create_task(_send_feed(feed_reader, writer)),
            asyncio.create_task(self._send_signs_of_life(writer)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except (OSError, TimeoutError, ProtocolError, Refused) as error:
            return describe_error(error)
        finally:
            # Before the wait, which may be cancelled.
            feed_writer.transport.abort()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return "the connection ended"

    async def _receive(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        feed: asyncio.StreamWriter,
        manager: str,
    ) -> None:
        """Handle what the control process sends. Raises Refused, ProtocolError, OSError."""
        while (message := await read_message(reader)) is not None:
            match message:
                case FeedBytes(data=data):
                    feed.write(data)
                    await feed.drain()
                case CertificateIssued(certificate=certificate) if self._next_key:
                    self._take_certificate(certificate)
                case NodeRefused(reason=reason):
                    raise Refused(reason)
                case KeepAlive():
                    if self._logged != manager:
                        _log.info("connected", manager=manager)
                        self._logged = manager
                    self._renew_if_due(writer)
                case _:
                    raise ProtocolError(f"it sent {type(message).__name__}")

    def _renew_if_due(self, writer: asyncio.StreamWriter) -> None:
        """Ask for the next certificate, once for each connection and certificate."""
        issued, _ = self._identity.validity()
        is_due = self._now() > issued + RENEW_AFTER or not self._identity.peer_name()
        if is_due and not self._next_key:
            self._next_key, request = new_request()
            writer.write(encode_message(RenewRequest(request)))

    def _take_certificate(self, certificate: str) -> None:
        """Use a renewed certificate from the next connection on, also between proxies. Raises
        OSError."""
        identity = NodeIdentity(self._next_key, certificate, self._identity.authority)
        self._keep(self._state, identity)
        self._identity, self._next_key = identity, ""
        self._write_peer_files()
        _log.info("certificate renewed", until=identity.validity()[1])

    def _write_peer_files(self) -> None:
        """Give the proxy of this node its certificate. One of an earlier version does not have the
        name for that, and is renewed."""
        identity, name = self._identity, self._identity.peer_name()
        if name:
            chain = identity.key + identity.certificate
            write_files(self._state, name, chain, identity.authority)

    async def _send_signs_of_life(self, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(encode_message(KeepAlive(self._load.read())))
            await asyncio.sleep(KEEP_ALIVE_SECONDS)


async def _send_feed(feed: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send what the supervisor says. A slow network slows this down; a supervisor whose messages
    are not read for long ends the feed, and the next connection begins with its current state."""
    while data := await feed.read(CHUNK):
        writer.write(encode_feed(data))
        await writer.drain()
