"""The supervisor's record of one worker process: what it was sent, and what to send next.

Owned by `worker_pool`, one per process. Level-triggered: `sync` compares what the worker was
sent with the current state and sends the next message. Only one snapshot is in transit at a
time. A listener is sent only after the worker has acked the snapshot that contains it.
"""

from dataclasses import dataclass, field

from proxy.ipc.channel import Channel
from proxy.ipc.sockets import ListeningSockets
from proxy.supervisor.process import Process
from proxy.wire.report import (
    Accepting,
    Ack,
    Drain,
    ListenOn,
    ReopenLog,
    StopListening,
    TicketSecrets,
    make_publication,
)
from proxy.wire.snapshot import Generation, Listener, Snapshot

OpenListeners = dict[str, tuple[Listener, ListeningSockets]]
"""The open listeners by configured address."""

PROTOCOL = 3
"""Version of the messages to workers. From 1 on they understand `Drain.tunnels` and `ReopenLog`,
from 2 on `TicketSecrets`, from 3 on `PublishDelta`."""
_TUNNELS_PROTOCOL = 1
"""Version from which on a worker understands `Drain.tunnels` and `ReopenLog`."""
_TICKETS_PROTOCOL = 2
"""Version from which on a worker understands `TicketSecrets`."""
_DELTAS_PROTOCOL = 3
"""Version from which on a worker understands `PublishDelta`."""
_RESTART_DELAY_FIRST = 0.1
"""Seconds before the restart that follows a second early exit; doubles with each one."""
_RESTART_DELAY_MAX = 5.0
"""Seconds; slow enough not to burn CPU in a crash loop, short enough to recover quickly."""


@dataclass(eq=False, slots=True)
class WorkerHandle:
    """The supervisor's handle of one worker process. Times are in seconds of the event loop's
    clock.

    - `slot`: index of the listening sockets that it accepts on
    - `heard_at`: when its last message arrived
    - `row`: its row in the shared memory; -1 for none
    - `sent`: last snapshot sent; None if the worker needs a full one
    - `waiting_since`: when `sent` was sent; None once it is acked
    - `acked`: last snapshot that it acked
    - `refused`: last generation that it could not install
    - `listeners_sent`: listeners that it was asked to accept on, by address
    - `accepting`: addresses that it says it accepts on
    - `has_served`: whether it has accepted on every open address
    - `draining_until`: when it must have ended; None if it does not drain
    - `keeps_tunnels`: whether it was allowed to keep tunnels while it drains
    - `protocol`: the version of the messages that it understands; see `PROTOCOL`
    - `secrets_sent`: the secrets of session tickets that it was sent
    """

    worker: int
    slot: int
    process: Process
    channel: Channel
    started_at: float
    heard_at: float
    row: int = -1
    sent: Snapshot | None = None
    waiting_since: float | None = None
    acked: Snapshot | None = None
    refused: Generation | None = None
    last_ack: Ack | None = None
    listeners_sent: dict[str, Listener] = field(default_factory=dict)
    accepting: frozenset[str] = frozenset()
    has_served: bool = False
    draining_until: float | None = None
    keeps_tunnels: bool = False
    protocol: int = PROTOCOL
    secrets_sent: tuple[bytes, ...] = ()

    @property
    def is_draining(self) -> bool:
        """Whether it was asked to drain."""
        return self.draining_until is not None

    def is_serving(self, listeners: OpenListeners) -> bool:
        """Whether it has installed a snapshot and accepts on every open address."""
        return self.last_ack is not None and self.accepting >= listeners.keys()

    def sync(
        self,
        snapshot: Snapshot,
        listeners: OpenListeners,
        now: float,
        fallback: Snapshot | None = None,
    ) -> None:
        """Send the next message, if one is due.

        `fallback` is a snapshot that some worker has installed. A worker that refused
        `snapshot` and has no other one gets `fallback`.
        """
        if self.waiting_since is not None:
            return
        if snapshot.generation == self.refused:
            known = self.acked or fallback
            if known is None or known.generation == self.refused:
                return
            snapshot = known
        if self.sent is None or self.sent.generation < snapshot.generation:
            deltas = self.protocol >= _DELTAS_PROTOCOL
            self.channel.send(make_publication(self.sent, snapshot, deltas=deltas))
            self.sent = snapshot
            self.waiting_since = now
        elif not self.is_draining:
            self._sync_listeners(listeners)

    def _sync_listeners(self, listeners: OpenListeners) -> None:
        for address in self.listeners_sent.keys() - listeners.keys():
            self.channel.send(StopListening(address))
            del self.listeners_sent[address]
        for address, (listener, listening) in listeners.items():
            if self.listeners_sent.get(address) != listener:
                self.channel.send(ListenOn(listener), listening.slots[self.slot].fileno())
                self.listeners_sent[address] = listener

    def on_message(self, now: float) -> None:
        """Record that a message arrived."""
        self.heard_at = now

    def on_ack(self, ack: Ack) -> None:
        """Record an ack."""
        self.last_ack = ack
        if self.sent is not None and ack.generation >= self.sent.generation:
            self.waiting_since = None
            self.acked = self.sent

    def on_refused(self, generation: Generation) -> None:
        """Record that it could not install `generation` and still uses the one before."""
        self.refused = generation
        self.sent = self.acked
        self.waiting_since = None

    def on_accepting(self, message: Accepting) -> None:
        """Record the addresses that it accepts on."""
        self.accepting = frozenset(message.addresses)

    def on_resync(self) -> None:
        """Record that it misses a service; the next `sync` sends a full snapshot."""
        self.sent = None
        self.waiting_since = None

    def restart_timers(self, now: float) -> None:
        """Restart the ack and silence timers, after the supervisor itself was paused."""
        self.heard_at = now
        if self.waiting_since is not None:
            self.waiting_since = now

    def drain(self, until: float, *, tunnels: bool) -> None:
        """Tell it to stop accepting, finish its requests and end by `until`. `tunnels` says whether
        it keeps tunnels for longer than requests."""
        if self.draining_until is None or (self.keeps_tunnels and not tunnels):
            self.channel.send(Drain(tunnels=tunnels or self.protocol < _TUNNELS_PROTOCOL))
            self.keeps_tunnels = tunnels
            self.draining_until = self.draining_until or until
        self.draining_until = min(self.draining_until, until)

    def reopen_log(self) -> None:
        """Tell it to open the file of the access log again."""
        if self.protocol >= _TUNNELS_PROTOCOL:
            self.channel.send(ReopenLog())

    def send_secrets(self, secrets: tuple[bytes, ...]) -> None:
        """Send the secrets of session tickets, unless it has them."""
        if self.protocol >= _TICKETS_PROTOCOL and self.secrets_sent != secrets:
            self.channel.send(TicketSecrets(secrets))
            self.secrets_sent = secrets


def kill_reason(
    handle: WorkerHandle, now: float, ack_seconds: float, silence_seconds: float
) -> str | None:
    """Return why a worker must be killed and replaced; None if it is healthy."""
    if handle.waiting_since is not None:
        # The first snapshot comes while the worker still imports its modules.
        allowed = ack_seconds if handle.last_ack else max(ack_seconds, silence_seconds)
        if now - handle.waiting_since > allowed:
            return f"no ack of a snapshot within {allowed:g} s"
    if now - handle.heard_at > silence_seconds:
        return f"no message for {silence_seconds:g} s"
    if handle.draining_until is not None and now > handle.draining_until:
        return "not finished within the drain time"
    return None


def restart_delay(failures: int) -> float:
    """Return the seconds to wait before starting a slot's next worker.

    `failures` counts consecutive early exits. A single crash is replaced at once; a crash loop
    slows down exponentially.
    """
    if failures <= 1:
        return 0.0
    return min(_RESTART_DELAY_FIRST * 2.0 ** (failures - 2), _RESTART_DELAY_MAX)
