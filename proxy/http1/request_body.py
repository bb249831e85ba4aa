"""The body of a request, as far as it has arrived and may still be needed.

`proxy.request.exchange` creates one with the first byte of a body; most requests have none.
"""


class BufferedBody:
    """The kept part of a request's body.

    - `pieces`: what was received and is not sent yet, or may be sent again.
    - `size`: bytes received for it, as long as it is kept.
    - `replayable`: whether `pieces` holds everything that was received.
    """

    __slots__ = ("pieces", "replayable", "size")

    def __init__(self, first: bytes) -> None:
        self.pieces = [first]
        self.size = len(first)
        self.replayable = True

    def add(self, data: bytes) -> None:
        """Keep more of the body, which is not sent yet."""
        self.pieces.append(data)
        self.size += len(data)

    def sent(self, limit: int) -> None:
        """Note that all pieces are sent. They stay only up to `limit` bytes, for a retry."""
        if self.size > limit:
            self.pieces = []
            self.replayable = False

    def add_sent(self, data: bytes, limit: int) -> None:
        """Note more of the body, which is sent already."""
        if self.replayable:
            self.add(data)
            self.sent(limit)
