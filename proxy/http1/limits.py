"""Size limits of the parts of a message, in bytes unless a name says otherwise. Pure.

Read by the parsers of this package and by `proxy.request`.

Requests come from anywhere, so their limits are close to those of nginx, Apache and Envoy (a
field line of 8 to 64 KiB, a head of 32 to 64 KiB). Responses come from the operator's own
origins and may have much larger heads.
"""

from typing import Final

REQUEST_LINE: Final = 16 * 1024
"""Twice the 8000 octets that RFC 9112, section 3, recommends as a minimum."""
FIELD_LINE: Final = 32 * 1024
"""One header field: room for large cookies and Kerberos tokens."""
REQUEST_HEAD: Final = 64 * 1024
"""Request line and all fields (Envoy's default is 60 KiB)."""
REQUEST_FIELDS: Final = 200
"""Number of fields (Envoy and Apache: 100)."""
RESPONSE_HEAD: Final = 256 * 1024
"""Bytes of the status line and all fields."""
RESPONSE_FIELDS: Final = 1000
"""Number of fields."""
INTERIM_RESPONSES: Final = 64
"""Number of 1xx responses to one request; an origin that sends more is broken."""
CHUNK_LINE: Final = 1024
"""Chunk size and extensions; extensions are hardly ever used."""
TRAILERS: Final = 16 * 1024
"""All trailer fields of one body."""
LARGEST_BODY: Final = (1 << 63) - 1
"""Largest Content-Length: what fits into a signed 64-bit number, as in most servers."""
CONTENT_LENGTH_DIGITS: Final = 19
"""Decimal digits of LARGEST_BODY."""
CHUNK_SIZE_DIGITS: Final = 15
"""Hexadecimal digits: 60 bits, so that no reader overflows 63 bits."""
HOPS: Final = 32
"""Times that a request may pass this proxy. Deeper chains of services that copy all fields are not
known; a loop costs this many connections for a moment."""
LEADING_EMPTY_LINES: Final = 2
"""Empty lines accepted before a request line (RFC 9112, section 2.2, asks for at least one)."""
