"""The phases of an exchange, in the order in which they come."""

from typing import Final

NEW: Final = 0
WAITING: Final = 1
CONNECTING: Final = 2
SENT: Final = 3
ANSWERING: Final = 4
TUNNEL: Final = 5
OVER: Final = 6
