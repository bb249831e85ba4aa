"""Limits on what a peer may send without any work being done: floods and resets. Pure.

`proxy.http2_downstream.connection` owns one `FrameBudget` for each connection and ends it when the
budget is used up. The codec limits the size of messages by itself.
"""

from typing import Final

CONTROL_BURST: Final = 1000.0
"""Control frames (PING, SETTINGS, WINDOW_UPDATE, empty DATA, PRIORITY and unknown ones) that a peer
may send at once: a client sends up to two WINDOW_UPDATE for each DATA frame, and a few PING."""
CONTROL_RATE: Final = 100.0
"""The same per second. A flood at this rate costs less than 0.1 % of a core."""
CONTROL_PER_WORK: Final = 10.0
"""Control frames earned by a request, or by a piece of a body in either direction: the factor of
Envoy (`max_inbound_window_update_frames_per_data_frame_sent`)."""
RESET_BURST: Final = 200.0
"""Streams that a client may reset before their response, at once: twice those that it can have
open. A user who leaves a page resets what it loads."""
RESET_RATE: Final = 20.0
"""The same per second: more than a client that gives up requests after a deadline needs."""


class FrameBudget:
    """Counts what one peer sends; each method returns whether that is still acceptable."""

    __slots__ = ("_control", "_resets", "_since")

    def __init__(self, now: float) -> None:
        self._control = CONTROL_BURST
        self._resets = RESET_BURST
        self._since = now

    def earn(self) -> None:
        """Note a request, or a piece of a body in either direction."""
        control = self._control + CONTROL_PER_WORK
        self._control = control if control < CONTROL_BURST else CONTROL_BURST

    def take_control(self, now: float) -> bool:
        """Note a control frame."""
        if self._control < 1.0:
            self._refill(now)
        self._control -= 1.0
        return self._control >= 0.0

    def take_reset(self, now: float) -> bool:
        """Note a stream that the peer reset before its response was complete."""
        if self._resets < 1.0:
            self._refill(now)
        self._resets -= 1.0
        return self._resets >= 0.0

    def take_controls(self, frames: int, now: float) -> bool:
        """Note frames that have no effect."""
        if self._control < frames:
            self._refill(now)
        self._control -= frames
        return self._control >= 0.0

    def _refill(self, now: float) -> None:
        """Add what was earned by time."""
        seconds = now - self._since
        self._since = now
        self._control = min(CONTROL_BURST, self._control + seconds * CONTROL_RATE)
        self._resets = min(RESET_BURST, self._resets + seconds * RESET_RATE)
