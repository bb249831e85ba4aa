"""Frames of one HTTP/2 connection, as server or as client: bytes to events, calls to bytes.

Each connection of a client (`proxy.http2_downstream`) or to an endpoint owns a `Codec`. It is a
thin layer over `ngh2`, a binding of libnghttp2, and the only module that imports it. ngh2 enforces
RFC 9113: framing, HPACK, stream states, flow control and the form of messages. It answers SETTINGS
and PING, and orders DATA by priority (RFC 9218). This module sets its limits, makes calls for
streams that have ended harmless, and reports every fatal error in one form.
"""

import struct
from typing import Final

import ngh2
from ngh2 import (
    ConnectionClosed,
    DataReceived,
    ErrorCode,
    Event,
    GoAwayReceived,
    InformationalResponseReceived,
    PingAcknowledged,
    PingReceived,
    PriorityUpdateReceived,
    RequestReceived,
    ResponseReceived,
    Setting,
    SettingsReceived,
    StreamClosed,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)

__all__ = [
    "Codec",
    "ConnectionClosed",
    "ConnectionFailed",
    "DataReceived",
    "ErrorCode",
    "Event",
    "Fields",
    "GoAwayReceived",
    "InformationalResponseReceived",
    "PingAcknowledged",
    "PingReceived",
    "PriorityUpdateReceived",
    "RequestReceived",
    "ResponseReceived",
    "SettingsReceived",
    "StreamClosed",
    "StreamReset",
    "TrailersReceived",
    "WindowUpdated",
]

Fields = list[tuple[bytes, bytes]]
"""Fields of a message in order, pseudo-header fields first. Names are in lower case."""

MAX_STREAMS: Final = 100
"""Streams that a peer may have open at once: the minimum that RFC 9113, section 6.5.2, recommends,
and the default of HAProxy and Envoy."""
STREAM_WINDOW: Final = 128 * 1024
"""Bytes that a peer may send on a stream before they are consumed: 1 MB/s at a round trip of
100 ms."""
CONNECTION_WINDOW: Final = MAX_STREAMS * STREAM_WINDOW
"""The same for all streams together. Streams that consume nothing never block another one."""
MAX_FIELDS_SIZE: Final = 128 * 1024
"""Bytes of one list of received fields, counted as RFC 9113, section 6.5.2, counts them. Twice what
a request may have (`proxy.http1.limits`): between the two a request gets status 431, and beyond
this the connection ends."""
MAX_FIELDS: Final = 1200
"""Received fields of one message: more than `proxy.http1.limits` allows to responses."""
MAX_SENT_FIELDS_SIZE: Final = 512 * 1024
"""Bytes of one list of fields to send: no message that the proxy accepts is larger."""
MAX_CONTINUATIONS: Final = 16
"""CONTINUATION frames of one header block: 16 KiB each, so more than a field list may have."""
MAX_ACKNOWLEDGEMENTS: Final = 1000
"""Answers to PING and SETTINGS that wait to be sent."""
RESET_RATE: Final = (2000, 200)
"""RST_STREAM frames that a client may send: at once, and per second. `proxy.http2_downstream` ends
the connection long before, by the share of streams that were reset."""
GLITCH_RATE: Final = (1000, 100)
"""Frames with errors that do not end the connection: at once, and per second."""
_FRAME: Final = struct.Struct("!HBBBLLL")
"""A GOAWAY frame without debug data: length, type, flags and stream, last stream and error code."""
_GOAWAY_TYPE: Final = 7
"""Frame type of GOAWAY."""
LAST_STREAM: Final = (1 << 31) - 1
"""The largest id of a stream: a GOAWAY frame with it refuses none."""
_GOAWAY_SIZE: Final = 8
"""Bytes of its payload."""
_CLOSED_STREAM_ERRORS: Final = (ngh2.StreamProtocolError, ngh2.ConnectionStateError)
"""Raised by calls for a stream, or on a connection, that has ended."""


class ConnectionFailed(Exception):
    """The connection cannot be used any longer.

    - `code`: error code of HTTP/2.
    - `last_bytes`: bytes to send before the connection is closed.
    """

    def __init__(self, code: int, reason: str, last_bytes: bytes) -> None:
        super().__init__(reason)
        self.code = code
        self.last_bytes = last_bytes


class Codec:
    """The HTTP/2 state of one connection.

    After every call that sends something, and after `receive`, the caller writes what `output`
    returns. Calls for streams that have ended do nothing: the peer may end a stream at any time.

    - `last_stream`: id of the last stream that the peer opened.
    """

    __slots__ = ("_connection", "_notice", "last_stream")

    def __init__(self, *, is_server: bool) -> None:
        configuration = ngh2.Configuration(
            auto_window_update=False,
            max_send_header_block_length=MAX_SENT_FIELDS_SIZE,
            max_outbound_ack=MAX_ACKNOWLEDGEMENTS,
            stream_reset_rate_limit=RESET_RATE,
            max_continuations=MAX_CONTINUATIONS,
            glitch_rate_limit=GLITCH_RATE,
            max_inbound_header_list_size=MAX_FIELDS_SIZE,
            max_inbound_header_count=MAX_FIELDS,
        )
        role = ngh2.Role.SERVER if is_server else ngh2.Role.CLIENT
        self.last_stream = 0
        self._notice = b""
        self._connection = connection = ngh2.Connection(role, configuration)
        settings = {
            Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            Setting.MAX_HEADER_LIST_SIZE: MAX_FIELDS_SIZE // 2,
            Setting.NO_RFC7540_PRIORITIES: 1,
        }
        if is_server:
            settings[Setting.ENABLE_CONNECT_PROTOCOL] = 1
        else:
            settings[Setting.ENABLE_PUSH] = 0
        connection.initiate_connection(settings)
        connection.set_local_window_size(CONNECTION_WINDOW)

    # --- bytes and events

    def receive(self, data: bytes) -> list[Event]:
        """Process received bytes; return what happened. Raises ConnectionFailed."""
        try:
            self._connection.receive_data(data)
        except ngh2.ConnectionStateError:
            # The connection has ended already.
            return []
        except (ngh2.NGH2Error, ValueError) as error:
            raise self._failure(error) from None
        return self._connection.events()

    def output(self, limit: int) -> bytes:
        """Return at most `limit` bytes to send now; empty if there are none. Raises
        ConnectionFailed."""
        try:
            data = self._connection.data_to_send(limit)
            if self._notice and len(data) < limit:
                data += self._notice
                self._notice = b""
                self._connection.ping()
            return data
        except ngh2.ConnectionStateError:
            return b""
        except (ngh2.NGH2Error, ValueError) as error:
            raise self._failure(error) from None

    def events(self) -> list[Event]:
        """Return what happened since: `output` ends streams too."""
        return self._connection.events()

    def has_output(self) -> bool:
        """Return whether `output` may return bytes. The answer costs a sixth of an empty output."""
        try:
            return bool(self._notice) or self._connection.want_write
        except ngh2.ConnectionStateError:
            return False

    def _failure(self, error: Exception) -> ConnectionFailed:
        code = ErrorCode.PROTOCOL_ERROR
        if isinstance(error, ngh2.DenialOfServiceError):
            code = ErrorCode.ENHANCE_YOUR_CALM
        elif isinstance(error, ngh2.InternalError):
            code = ErrorCode.INTERNAL_ERROR
        return ConnectionFailed(code, str(error), goaway_frame(self.last_stream, code))

    # --- messages

    def send_request(self, fields: Fields, *, complete: bool) -> int:
        """Open a stream with a request's fields; return its id. `complete`: no body follows. Raises
        ConnectionFailed if the connection takes no more streams."""
        try:
            return self._connection.send_request(fields, end_stream=complete)
        except ngh2.NGH2Error as error:
            raise ConnectionFailed(ErrorCode.REFUSED_STREAM, str(error), b"") from None

    def can_send_request(self) -> bool:
        """Return whether `send_request` may open a stream: the peer has announced no end."""
        try:
            return self._connection.can_send_request
        except ngh2.ConnectionStateError:
            return False

    def send_response(self, stream: int, fields: Fields, *, complete: bool) -> None:
        """Send a response's fields; `complete`: no body follows."""
        try:
            self._connection.send_response(stream, fields, end_stream=complete)
        except _CLOSED_STREAM_ERRORS:
            return

    def send_interim_response(self, stream: int, fields: Fields) -> None:
        """Send the fields of a response with a 1xx status."""
        try:
            self._connection.send_informational_response(stream, fields)
        except _CLOSED_STREAM_ERRORS:
            return

    def send_data(self, stream: int, data: bytes, *, complete: bool) -> None:
        """Send bytes of a body once flow control allows; `complete`: they are the last."""
        try:
            self._connection.send_data(stream, data, end_stream=complete)
        except _CLOSED_STREAM_ERRORS:
            return

    def send_trailers(self, stream: int, fields: Fields) -> None:
        """Send fields behind the body, and end it."""
        try:
            self._connection.send_trailers(stream, fields)
        except _CLOSED_STREAM_ERRORS:
            return

    def reset(self, stream: int, code: int) -> None:
        """End a stream in both directions. Bytes of its body that wait are dropped."""
        try:
            self._connection.reset_stream(stream, code)
        except _CLOSED_STREAM_ERRORS:
            return

    # --- flow control

    def consume(self, stream: int, size: int) -> None:
        """Let the peer send `size` more bytes: that number of received bytes was passed on."""
        try:
            self._connection.acknowledge_received_data(size, stream)
        except _CLOSED_STREAM_ERRORS:
            return

    def unsent(self, stream: int) -> int:
        """Return the bytes of a body that wait for flow control or for their turn."""
        return self._connection.queued_body_size(stream)

    def may_send_data(self, stream: int) -> bool:
        """Return whether flow control lets a stream send at least one byte."""
        try:
            connection = self._connection
            window = connection.stream_remote_window_size(stream)
            return window > 0 and connection.remote_window_size > 0
        except _CLOSED_STREAM_ERRORS:
            return True

    def unsent_on_all(self) -> int:
        """Return the same for all streams together."""
        return self._connection.queued_body_size()

    def peer_settings(self) -> dict[int, int]:
        """Return the settings of the peer that apply, by `Setting`."""
        try:
            return self._connection.remote_settings
        except ngh2.ConnectionStateError:
            return {}

    def ping(self) -> None:
        """Ask the peer for a sign of life, which it sends at once."""
        try:
            self._connection.ping()
        except ngh2.NGH2Error:
            # The connection has ended.
            return

    # --- the end

    def announce_end(self) -> None:
        """Ask a client to open no more streams, as the first of two steps. Streams that it opens
        until it knows are still served; its answer to the PING behind it, which
        `PingAcknowledged` reports, says that it knows.

        libnghttp2 would end a connection without streams with this frame: it is sent without
        its knowledge."""
        self._notice = goaway_frame(LAST_STREAM, ErrorCode.NO_ERROR)

    def end(self) -> None:
        """Refuse streams that are opened from now on; those before continue. The second step."""
        try:
            self._connection.send_goaway(ErrorCode.NO_ERROR)
        except ngh2.ConnectionStateError:
            return

    def terminate(self, code: int) -> None:
        """End the connection and all its streams with an error code."""
        try:
            self._connection.terminate_connection(code)
        except ngh2.ConnectionStateError:
            return


def goaway_frame(last_stream: int, code: int) -> bytes:
    """Return a GOAWAY frame (RFC 9113, section 6.8)."""
    return _FRAME.pack(0, _GOAWAY_SIZE, _GOAWAY_TYPE, 0, 0, last_stream, code)
