"""The control process's end of the feed socket: snapshots out, acks and reports in.

Knows from the acks which endpoints no live worker uses any more. Reconnects by itself; the
supervisor keeps the last snapshot meanwhile.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from proxy.wire.codec import BadFrame, Decoder, encode
from proxy.wire.report import (
    Ack,
    Hello,
    ListenFailed,
    Listening,
    Message,
    Publish,
    Resync,
    Workers,
)
from proxy.wire.snapshot import Generation, Snapshot, SnapshotUpdate, difference

_log = structlog.stdlib.get_logger(__name__)
RECONNECT: Final = 0.2
CHUNK: Final = 256 * 1024
UNSENT: Final = 64 * 1024 * 1024
REMEMBERED: Final = 10_000


class Publisher:
    """Sends snapshots of one epoch and remembers what the workers said of them.

    `on_message` is called with every message of the supervisor, after it was taken in here.
    """

    def __init__(self, path: Path, epoch: int, on_message: Callable[[Message], None]) -> None:
        self.path = path
        self.generation = Generation(epoch, 0)
        self.held = Generation()
        self.live: tuple[int, ...] = ()
        self.bound: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.connected = False
        self._on_message = on_message
        self._acks: dict[int, Ack] = {}
        self.current: Snapshot | None = None
        self._ready: frozenset[str] = frozenset()
        self._out: dict[str, Generation] = {}
        self._first: Generation | None = None
        self.supervisor = 0
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        """Keep connected until cancelled."""
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self.path))
            except OSError as error:
                _log.debug("the supervisor's feed socket does not answer", error=str(error))
            else:
                await self._session(reader, writer)
            await asyncio.sleep(RECONNECT)

    async def over(self, sock: socket.socket) -> None:
        """Speak over a socket that is connected already, until it ends."""
        reader, writer = await asyncio.open_connection(sock=sock)
        await self._session(reader, writer)

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = Decoder()
        self._acks.clear()
        self._writer = writer
        self.supervisor = _peer(writer)
        writer.write(encode(Hello(role="control", generation=self.generation)))
        try:
            while data := await reader.read(CHUNK):
                for message in decoder.feed(data):
                    self.take(message)
        except (OSError, BadFrame) as error:
            _log.warning("the feed was cut", error=str(error))
        finally:
            self.connected = False
            self._writer = None
            writer.close()

    def take(self, message: Message) -> None:
        """One message of the supervisor."""
        match message:
            case Hello(generation=generation):
                self.connected = True
                self.held = generation
                self._catch_up()
            case Workers(live=live):
                self.live = live
                self._acks = {w: ack for w, ack in self._acks.items() if w in live}
            case Ack(worker=worker):
                self._acks[worker] = message
            case Resync() if self.current is not None:
                self._send(difference(None, self.current))
            case Listening(bound=bound):
                self.bound = dict(bound)
                self.refused = {a: e for a, e in self.refused.items() if a not in bound}
            case ListenFailed(address=address, error=error):
                self.refused[address] = error
            case _:
                pass
        self._on_message(message)

    def _catch_up(self) -> None:
        """The supervisor told what it holds: send ours, above that."""
        current = self.current
        if self.held >= self.generation and (current is None or current.generation != self.held):
            self.generation = Generation(max(self.held.epoch, self.generation.epoch) + 1, 0)
        if current is None or current.generation == self.held:
            return
        if current.generation.epoch != self.generation.epoch:
            self.current = None
            self.publish(current)
        else:
            self._send(difference(None, current))

    def publish(self, snapshot: Snapshot) -> bool:
        """Send `snapshot` at the next generation, if it differs from the last one. Whether it
        did."""
        current = self.current
        if current is not None:
            same = msgspec.structs.replace(snapshot, generation=current.generation)
            if same == current:
                return False
        self.generation = Generation(self.generation.epoch, self.generation.number + 1)
        snapshot = msgspec.structs.replace(snapshot, generation=self.generation)
        self._note_out(snapshot)
        self._send(difference(current, snapshot))
        self.current = snapshot
        return True

    def _note_out(self, snapshot: Snapshot) -> None:
        """Remember at which generation an endpoint was no longer ready."""
        ready = frozenset(
            e.id for service in snapshot.services for e in service.endpoints if e.state == "ready"
        )
        present = {e.id for service in snapshot.services for e in service.endpoints}
        if self._first is None:
            self._first = snapshot.generation
        for name in self._ready - ready:
            self._out[name] = snapshot.generation
        for name in list(self._out)[: max(0, len(self._out) - REMEMBERED)]:
            if name not in present:
                del self._out[name]
        self._ready = ready

    def _send(self, update: SnapshotUpdate) -> None:
        if self._writer is None or not self.connected:
            return
        self._writer.write(encode(Publish(update=update)))
        if self._writer.transport.get_write_buffer_size() > UNSENT:
            _log.warning("the supervisor does not read its feed; connecting anew")
            self._writer.transport.abort()

    def drained(self, name: str) -> bool:
        """Whether every live worker acked a generation without new requests for this endpoint,
        and has none of it in flight. Without a word from any worker: no."""
        if name in self._ready or self._first is None or not self.connected or not self.live:
            return False
        out = self._out.get(name, self._first)
        for worker in self.live:
            ack = self._acks.get(worker)
            if ack is None or ack.generation < out or name in ack.busy:
                return False
        return True


def _peer(writer: asyncio.StreamWriter) -> int:
    """The process id at the other end of a Unix socket."""
    sock = writer.get_extra_info("socket")
    size = struct.calcsize("3i")
    pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(pid)
