"""How long the parts of a message may be, in bytes unless a name says otherwise.

Requests come from anywhere, so their bounds are close to what the widespread servers take.
Responses come from the operator's own origins and may carry far larger heads.
"""

from typing import Final

REQUEST_LINE: Final = 16 * 1024
FIELD_LINE: Final = 32 * 1024
REQUEST_HEAD: Final = 64 * 1024
REQUEST_FIELDS: Final = 200
RESPONSE_HEAD: Final = 256 * 1024
RESPONSE_FIELDS: Final = 1000
INTERIM_RESPONSES: Final = 64
CHUNK_LINE: Final = 1024
TRAILERS: Final = 16 * 1024
LARGEST_BODY: Final = (1 << 63) - 1
CONTENT_LENGTH_DIGITS: Final = 19
CHUNK_SIZE_DIGITS: Final = 15
LEADING_EMPTY_LINES: Final = 2
