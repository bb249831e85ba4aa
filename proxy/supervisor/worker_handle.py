"""What the supervisor knows of one worker process, and what it still has to tell it.

Level-triggered: `sync` compares what the worker was told with what holds now and sends the
next thing, one snapshot at a time, so that a worker never has more than one on its way. A
worker is told of a listener only once it routes by the snapshot that brought it.
"""

from dataclasses import dataclass, field

from proxy.ipc.channel import Channel
from proxy.ipc.sockets import ListeningSockets
from proxy.supervisor.process import Process
from proxy.wire.report import Accepting, Ack, Drain, ListenOn, Publish, StopListening
from proxy.wire.snapshot import Generation, Listener, Snapshot, difference

Open = dict[str, tuple[Listener, ListeningSockets]]
"""The open listeners by the address asked for."""


@dataclass(eq=False, slots=True)
class WorkerHandle:
    """One worker process. Times are of the loop's clock."""

    worker: int
    slot: int
    process: Process
    channel: Channel
    started_at: float
    heard_at: float
    row: int = -1
    sent: Snapshot | None = None
    """The last snapshot sent; None when the worker has to get all of it."""
    waiting_since: float | None = None
    """When `sent` went out, while it is not acked."""
    held: Snapshot | None = None
    """The last snapshot it acked."""
    refused: Generation | None = None
    """The last one it could not route by."""
    last_ack: Ack | None = None
    told: dict[str, Listener] = field(default_factory=dict)
    accepting: frozenset[str] = frozenset()
    draining_until: float | None = None

    @property
    def draining(self) -> bool:
        """It was told to finish."""
        return self.draining_until is not None

    def serving(self, listeners: Open) -> bool:
        """It routes by some snapshot, and accepts on every open address."""
        return self.last_ack is not None and self.accepting >= listeners.keys()

    def sync(
        self, snapshot: Snapshot, listeners: Open, now: float, fallback: Snapshot | None = None
    ) -> None:
        """Send what comes next, if anything does. `fallback` is what some worker routes by: one
        that refused `snapshot` and has nothing else gets that."""
        if self.waiting_since is not None:
            return
        if snapshot.generation == self.refused:
            known = self.held or fallback
            if known is None or known.generation == self.refused:
                return
            snapshot = known
        if self.sent is None or self.sent.generation < snapshot.generation:
            self.channel.send(Publish(difference(self.sent, snapshot)))
            self.sent = snapshot
            self.waiting_since = now
        elif not self.draining:
            self._sync_listeners(listeners)

    def _sync_listeners(self, listeners: Open) -> None:
        for address in self.told.keys() - listeners.keys():
            self.channel.send(StopListening(address))
            del self.told[address]
        for address, (listener, listening) in listeners.items():
            if self.told.get(address) != listener:
                self.channel.send(ListenOn(listener), listening.slots[self.slot].fileno())
                self.told[address] = listener

    def acked(self, ack: Ack) -> None:
        """Take note of an ack."""
        self.last_ack = ack
        if self.sent is not None and ack.generation >= self.sent.generation:
            self.waiting_since = None
            self.held = self.sent

    def refuses(self, generation: Generation) -> None:
        """Take note that it routes by what it had before."""
        self.refused = generation
        self.sent = self.held
        self.waiting_since = None

    def accepts(self, message: Accepting) -> None:
        """Take note of where it accepts."""
        self.accepting = frozenset(message.addresses)

    def resync(self) -> None:
        """It lacks something; the next `sync` sends everything."""
        self.sent = None
        self.waiting_since = None

    def drain(self, until: float) -> None:
        """Tell it to accept no more and to end when it has finished, at `until` at last."""
        if self.draining_until is None:
            self.channel.send(Drain())
            self.draining_until = until
        self.draining_until = min(self.draining_until, until)


def complaint(
    link: WorkerHandle, now: float, ack_seconds: float, silence_seconds: float
) -> str | None:
    """Why a worker has to be ended and replaced; None when there is no reason."""
    if link.waiting_since is not None:
        patience = ack_seconds if link.last_ack else max(ack_seconds, silence_seconds)
        if now - link.waiting_since > patience:
            return f"no ack of a snapshot within {patience:g} s"
    if now - link.heard_at > silence_seconds:
        return f"not heard of for {silence_seconds:g} s"
    if link.draining_until is not None and now > link.draining_until:
        return "not finished within the drain time"
    return None


def restart_delay(failures: int) -> float:
    """Seconds to wait before a slot's next worker, after `failures` short lives in a row: a
    worker that dies now and then is replaced at once, a crash loop slows down."""
    return 0.0 if failures <= 1 else min(0.1 * 2.0 ** (failures - 2), 5.0)
