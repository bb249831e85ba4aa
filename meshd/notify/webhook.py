"""Delivery to one webhook: a bounded queue, and retries with back-off.

`meshd.notify.notifier` makes one for each target and runs it as a task. Nothing waits for it: a
full queue drops the newest message and counts it. URLs are secrets, so logs name the host only.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
import structlog

from meshd.notify.grouping import Message
from meshd.notify.payload import encode_message
from meshd.spec.model.notify import NotifyTarget

_log = structlog.stdlib.get_logger(__name__)
MAX_QUEUED: Final = 100
"""Messages that wait, of at least `interval` (default: one minute) each."""
FIRST_PAUSE: Final = 1.0
"""Seconds before the first retry; each further pause is twice as long."""
LONGEST_PAUSE: Final = 300.0
"""Seconds between two retries at most, so that a service that is back gets the message soon."""
GIVE_UP: Final = 3600.0
"""Seconds after which a message is of no use any more."""
TIMEOUT: Final = aiohttp.ClientTimeout(total=10.0)
"""Seconds that a webhook may take: chat services answer within one."""
RETRIED: Final = frozenset((408, 425, 429))
"""Client errors that another attempt may mend (RFC 9110, RFC 8470, RFC 6585); so may every 5xx."""


Pause = Callable[[float], Awaitable[object]]


class _MessageRefused(Exception):
    """The webhook refused a message for good."""


class Webhook:
    """Sends messages to `target` in order. `count` is called with `sent`, `retried` or `dropped`
    for each message or attempt; `pause` waits a number of seconds."""

    def __init__(
        self,
        target: NotifyTarget,
        sender: str,
        count: Callable[[str], None],
        pause: Pause = asyncio.sleep,
    ) -> None:
        self.target = target
        self._sender = sender
        self._count = count
        self._pause = pause
        self._queue: asyncio.Queue[Message] = asyncio.Queue(MAX_QUEUED)

    def offer(self, message: Message) -> None:
        """Queue a message; drop it if the queue is full."""
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self._drop(f"{MAX_QUEUED} messages wait already")

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with aiohttp.ClientSession(timeout=TIMEOUT, trust_env=True) as session:
            while True:
                await self._deliver(session, await self._queue.get())

    async def _deliver(self, session: aiohttp.ClientSession, message: Message) -> None:
        body = encode_message(message, self.target.format, self._sender)
        waited, pause = 0.0, FIRST_PAUSE
        while True:
            try:
                await self._send(session, body)
            except _MessageRefused as error:
                return self._drop(str(error))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if waited >= GIVE_UP:
                    return self._drop(f"no answer for {GIVE_UP:g} s: {describe(error)}")
                self._count("retried")
                _log.info("notification is retried", host=self.target.host, reason=describe(error))
            else:
                return self._count("sent")
            await self._pause(pause)
            waited, pause = waited + pause, min(2 * pause, LONGEST_PAUSE)

    async def _send(self, session: aiohttp.ClientSession, body: bytes) -> None:
        """Send one request. Raises _MessageRefused; ClientError or TimeoutError if another attempt
        may succeed."""
        headers = {"Content-Type": "application/json", "User-Agent": "meshd"}
        async with session.post(
            self.target.url, data=body, headers=headers, allow_redirects=False
        ) as answer:
            status = answer.status
        if status in RETRIED or status >= 500:
            raise aiohttp.ClientError(f"status {status}")
        if not 200 <= status < 300:
            raise _MessageRefused(f"status {status}")

    def _drop(self, reason: str) -> None:
        self._count("dropped")
        _log.warning("notification is dropped", host=self.target.host, reason=reason)


def describe(error: Exception) -> str:
    """Return the kind of an error, and its text if that is ours: texts of the client library may
    contain the URL."""
    name = type(error).__name__
    return str(error) if type(error) is aiohttp.ClientError else name
