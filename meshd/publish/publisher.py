"""The control process's end of the feed socket: sends snapshots, receives acks and reports.

The reconciler publishes through it and asks `is_drained`; `meshd.daemon.worker_events` gets every
message. It reconnects by itself; meanwhile the supervisor keeps the last snapshot.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec
import structlog

from proxy.wire.codec import BadFrame, Decoder, encode
from proxy.wire.report import (
    SUPERVISOR,
    Ack,
    Hello,
    ListenFailed,
    Listening,
    Message,
    Resync,
    Workers,
    make_publication,
)
from proxy.wire.snapshot import Generation, Snapshot

_log = structlog.stdlib.get_logger(__name__)
RECONNECT_PAUSE: Final = 0.2
"""Seconds between two attempts to connect to the supervisor."""
CHUNK: Final = 256 * 1024
"""Bytes read at a time: several reports."""
MAX_UNSENT: Final = 64 * 1024 * 1024
"""Bytes that may wait to be sent; more means that the supervisor does not read."""
MAX_REMEMBERED: Final = 10_000
"""Endpoints out of use whose generation is remembered: twice the most replicas of a service."""


class OtherProxies(Protocol):
    """The proxies of other nodes, which get the same snapshots."""

    def publish(self, snapshot: Snapshot) -> None:
        """Send a snapshot to all of them."""

    def is_drained(self, endpoint: str, unused_since: Generation) -> bool:
        """Return whether all of them have that snapshot, and no request in flight on the
        endpoint."""

    def has_installed(self, generation: Generation) -> bool:
        """Return whether all that are connected have that snapshot."""


class Publisher:
    """Sends the snapshots of one epoch, and tracks what the workers acknowledge.

    - `path`: the feed socket.
    - `on_message`: called with every message of the supervisor, after it was handled here.
    - `generation`: generation of the last snapshot published; `current`: that snapshot.
    - `held`: generation that the supervisor had at the last connection.
    - `live`: numbers of the live workers; `ending`: whether the supervisor shuts down.
    - `bound`: addresses that the workers listen on, by listener; `refused`: errors by listener.
    - `supervisor`: process id of the supervisor; 0 before the first connection.

    `others` are the proxies of other nodes, if there may be some.
    """

    def __init__(
        self,
        path: Path,
        epoch: int,
        on_message: Callable[[Message], None],
        others: OtherProxies | None = None,
    ) -> None:
        self.path = path
        self.generation = Generation(epoch, 0)
        self.held = Generation()
        self.live: tuple[int, ...] = ()
        self.ending = False
        self.bound: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.connected = False
        self.current: Snapshot | None = None
        self.supervisor = 0
        self._on_message = on_message
        self._others = others
        self._acks: dict[int, Ack] = {}
        self._ready: frozenset[str] = frozenset()
        self._unused_since: dict[str, Generation] = {}
        self._first: Generation | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._deltas = False

    async def run(self) -> None:
        """Stay connected to the feed socket until cancelled."""
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self.path))
            except OSError as error:
                _log.debug("feed socket of the supervisor does not answer", error=str(error))
            else:
                await self._run_session(reader, writer)
            await asyncio.sleep(RECONNECT_PAUSE)

    async def run_over(self, sock: socket.socket) -> None:
        """Use a socket that is already connected, until it closes."""
        reader, writer = await asyncio.open_connection(sock=sock)
        await self._run_session(reader, writer)

    async def _run_session(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        decoder = Decoder()
        self._acks.clear()
        self._writer = writer
        self.supervisor = _peer_pid(writer)
        writer.write(encode(Hello(role="control", generation=self.generation)))
        try:
            while data := await reader.read(CHUNK):
                for message in decoder.feed(data):
                    self.handle(message)
        except (OSError, BadFrame) as error:
            _log.warning("feed connection lost", error=str(error))
        finally:
            self.connected = False
            self._writer = None
            writer.close()

    def handle(self, message: Message) -> None:
        """Handle one message of the supervisor."""
        match message:
            case Hello(role=role, generation=generation):
                self.connected = True
                self._deltas = role == SUPERVISOR
                self.held = generation
                self._catch_up()
            case Workers(live=live, ending=ending):
                self.live = live
                self.ending = ending
                self._acks = {w: ack for w, ack in self._acks.items() if w in live}
            case Ack(worker=worker):
                self._acks[worker] = message
            case Resync() if self.current is not None:
                self._send(None, self.current)
            case Listening(bound=bound):
                self.bound = dict(bound)
                self.refused = {a: e for a, e in self.refused.items() if a not in bound}
            case ListenFailed(address=address, error=error):
                self.refused[address] = error
            case _:
                pass
        self._on_message(message)

    def _catch_up(self) -> None:
        """Send the current snapshot with a generation above the one that the supervisor holds."""
        current = self.current
        if self.held >= self.generation and (current is None or current.generation != self.held):
            self.generation = Generation(max(self.held.epoch, self.generation.epoch) + 1, 0)
        if current is None or current.generation == self.held:
            return
        if current.generation.epoch != self.generation.epoch:
            self.current = None
            self.publish(current)
        else:
            self._send(None, current)

    def publish(self, snapshot: Snapshot) -> bool:
        """Send `snapshot` as the next generation, unless it equals the last one. Return whether it
        was sent."""
        current = self.current
        if current is not None:
            same = msgspec.structs.replace(snapshot, generation=current.generation)
            if same == current:
                return False
        self.generation = Generation(self.generation.epoch, self.generation.number + 1)
        snapshot = msgspec.structs.replace(snapshot, generation=self.generation)
        self._record_unused(snapshot)
        self._send(current, snapshot)
        self.current = snapshot
        if self._others is not None:
            self._others.publish(snapshot)
        return True

    def raise_above(self, held: Generation) -> None:
        """Give the current snapshot, and later ones, a generation above one that a proxy has from
        another control process."""
        if held < self.generation:
            return
        self.generation = Generation(held.epoch + 1, 0)
        current, self.current = self.current, None
        if current is not None:
            self.publish(current)

    def _record_unused(self, snapshot: Snapshot) -> None:
        """Remember the generation in which an endpoint stopped being ready."""
        ready = frozenset(
            e.id for service in snapshot.services for e in service.endpoints if e.state == "ready"
        )
        present = {e.id for service in snapshot.services for e in service.endpoints}
        if self._first is None:
            self._first = snapshot.generation
        for name in self._ready - ready:
            self._unused_since[name] = snapshot.generation
        surplus = max(0, len(self._unused_since) - MAX_REMEMBERED)
        for name in list(self._unused_since)[:surplus]:
            if name not in present:
                del self._unused_since[name]
        self._ready = ready

    def _send(self, old: Snapshot | None, new: Snapshot) -> None:
        if self._writer is None or not self.connected:
            return
        self._writer.write(encode(make_publication(old, new, deltas=self._deltas)))
        if self._writer.transport.get_write_buffer_size() > MAX_UNSENT:
            _log.warning("supervisor does not read its feed, so the connection is closed")
            self._writer.transport.abort()

    def is_answered(self, token: str) -> bool:
        """Return whether every live worker answers the challenge of a certificate authority with
        this token. False while no worker is known."""
        current = self.current
        if current is None or not self.connected or not self.live:
            return False
        if all(each.token != token for each in current.challenges):
            return False
        return self.is_installed(current.generation)

    def is_installed(self, generation: Generation) -> bool:
        """Return whether all live workers, and those of other nodes, route by this snapshot or a
        later one. True while there are none: nothing is served."""
        if self._others is not None and not self._others.has_installed(generation):
            return False
        return not self.connected or self._is_acknowledged(generation)

    def _is_acknowledged(self, generation: Generation) -> bool:
        """Return whether every live worker has installed this generation."""
        acks = [self._acks.get(worker) for worker in self.live]
        return all(ack is not None and ack.generation >= generation for ack in acks)

    def is_drained(self, name: str) -> bool:
        """Return whether every live worker acknowledged a generation that sends no new requests to
        this endpoint, and has none in flight on it. False while no worker is known."""
        if name in self._ready or self._first is None or not self.connected or not self.live:
            return False
        unused_since = self._unused_since.get(name, self._first)
        for worker in self.live:
            ack = self._acks.get(worker)
            if ack is None or ack.generation < unused_since or name in ack.busy:
                return False
        return self._others is None or self._others.is_drained(name, unused_since)


def _peer_pid(writer: asyncio.StreamWriter) -> int:
    """Return the process id at the other end of a Unix socket."""
    sock = writer.get_extra_info("socket")
    size = struct.calcsize("3i")
    pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(pid)
