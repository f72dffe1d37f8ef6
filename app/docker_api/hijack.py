"""Connections that stop being HTTP: attach and exec take the socket over, as Docker's clients ask.

No ASGI server offers it, so the connection's protocol does: it puts a coroutine into
`scope["extensions"]["docker.hijack"]`, which writes the head of the answer and gives the
connection as a `HijackStream`. An endpoint returns a `HijackResponse`; whatever it refuses before
that is an ordinary answer.
"""

import asyncio
import logging
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from typing import Any

import httptools
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.core.units import KIB
from app.docker_api.frames import RAW_STREAM
from app.docker_api.versions import HEADERS

EXTENSION = "docker.hijack"
CALLER = "slipway.caller"

READ_BYTES = 64 * KIB
BUFFER_BYTES = 256 * KIB
LINGER_S = 5.0
# docker-py reads frames from the socket under its HTTP library's buffer: what comes in one segment
# with the head is lost to it (dockerd loses it too, now and then).
HEAD_GAP_S = 0.01
_WITHOUT_GAP = b"Docker-Client/"
_CREDENTIALS = struct.Struct("3i")

logger = logging.getLogger(__name__)


class HijackStream:
    """The connection after its head: raw bytes in both directions, each ending by itself."""

    def __init__(self, protocol: "HijackProtocol") -> None:
        self._protocol = protocol
        self._transport = protocol.transport
        self._reader = asyncio.StreamReader(limit=BUFFER_BYTES)
        self._reader.set_transport(self._transport)  # holds the client back by itself
        # A write then waits until the kernel has all: what was written before is delivered.
        self._transport.set_write_buffer_limits(high=0)
        self.closed = asyncio.Event()

    async def read(self) -> bytes:
        """The next bytes of the client; b"" once it sends no more, or is gone."""
        return await self._reader.read(READ_BYTES)

    async def write(self, data: bytes) -> None:
        """Send bytes; waits, without a deadline, while the client does not take them.

        Raises:
            ConnectionResetError: The client is gone.
        """
        if self.closed.is_set() or self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self._transport.write(data)
        await self._protocol.flow.drain()  # the connection's loss ends this wait too
        if self.closed.is_set():
            raise ConnectionResetError("the client is gone")

    async def finish(self) -> None:
        """Say that nothing follows, then wait a little for the client to go.

        Closing while bytes of the client lie unread would reset the connection, and destroy
        output that is still under way.
        """
        if self._transport.is_closing():
            return
        try:
            self._transport.write_eof()
            async with asyncio.timeout(LINGER_S):
                while await self._reader.read(READ_BYTES):
                    pass
        except (TimeoutError, OSError, RuntimeError):
            pass  # it is closed all the same
        finally:
            self._transport.close()

    def close(self) -> None:
        """End the connection now; what was written is still sent."""
        self._transport.close()

    def feed(self, data: bytes) -> None:
        """Take bytes of the client; the protocol calls this."""
        self._reader.feed_data(data)

    def feed_eof(self) -> None:
        """The client sends no more; the protocol calls this."""
        self._reader.feed_eof()


class HijackProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with connections that can be taken over.

    The parser stops at the head of any Upgrade request, so the JSON body of such a request is
    counted and handed over here.
    """

    def __init__(self, *args: Any, **more: Any) -> None:  # noqa: ANN401  (uvicorn's own signature)
        super().__init__(*args, **more)
        self._stream: HijackStream | None = None
        self._is_opaque = False  # the parser has stopped at an Upgrade
        self._early = bytearray()  # of the client, from before the answer's head
        self._has_eof = False
        self._body_left = 0
        self._caller = ""
        self._is_ending = False  # the engine is

    # --- requests ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note who is at the other end."""
        super().connection_made(transport)
        self._caller = caller_of(transport)

    def on_message_begin(self) -> None:
        """Offer the hijack to this request."""
        super().on_message_begin()
        extensions: dict[str, Any] = {EXTENSION: self.hijack, CALLER: self._caller}
        self.scope["extensions"] = extensions

    def on_headers_complete(self) -> None:
        """Find out how much body follows an Upgrade's head."""
        super().on_headers_complete()
        if not self.parser.should_upgrade() or self._should_upgrade():
            return
        self.cycle.keep_alive = False  # an ordinary answer ends the connection
        for name, value in self.headers:
            if name == b"content-length":
                self._body_left = int(value)
            elif name == b"transfer-encoding":
                self.send_400_response("An Upgrade request with a chunked body is not supported")

    def on_message_complete(self) -> None:
        """The parser has seen the end, which for an Upgrade is only that of its head."""
        if not self._body_left:
            super().on_message_complete()

    # --- bytes -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Give bytes to whoever has the connection now."""
        if self._stream is not None:
            self._stream.feed(data)
        elif self._is_opaque:
            self._take_opaque(data)
        elif self._awaits_hijack():
            self._keep_early(data)
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            else:
                self._is_opaque = True
                self._take_opaque(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def _take_opaque(self, data: bytes) -> None:
        if self._body_left:
            part, data = data[: self._body_left], data[self._body_left :]
            self._body_left -= len(part)
            self.cycle.body += part
            self.cycle.more_body = self._body_left > 0
            self.cycle.message_event.set()
        self._keep_early(data)

    def _keep_early(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > BUFFER_BYTES:
            self.flow.pause_reading()

    def _awaits_hijack(self) -> bool:
        """Whether bytes now are input of a request without Upgrade that has not been answered."""
        cycle = self.cycle
        return (
            cycle is not None
            and not cycle.response_started
            and not cycle.more_body
            and cycle.scope["method"] == "POST"
            and _is_hijackable(cycle.scope["path"])
        )

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep the other direction open: clients end their input before they read the output."""
        if self._stream is not None:
            self._stream.feed_eof()
            return True
        if self._is_opaque or self._awaits_hijack():
            self._has_eof = True
            return True
        super().eof_received()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever reads or writes."""
        if self._stream is not None:
            self._stream.closed.set()
            self._stream.feed_eof()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The engine ends: streams end now, short requests are still answered."""
        self._is_ending = True
        if self._stream is not None or (self.cycle is not None and self.cycle.response_started):
            self.transport.close()
        else:
            super().shutdown()

    # --- the extension -----------------------------------------------------------------------

    async def hijack(self, content_type: str) -> HijackStream:
        """Write the head of the answer and give the connection away."""
        cycle = self.cycle
        if self._is_ending or cycle.response_started or self.pipeline:
            raise ConnectionResetError("the connection can't be taken over")
        cycle.response_started = cycle.response_complete = True
        cycle.keep_alive = False
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self._stream = stream = HijackStream(self)
        if self._early:
            stream.feed(bytes(self._early))
            self._early.clear()
        if self._has_eof:
            stream.feed_eof()
        self.transport.write(
            _head(content_type if self._is_opaque else RAW_STREAM, self._is_opaque)
        )
        if not _header(self.headers, b"user-agent").startswith(_WITHOUT_GAP):
            await asyncio.sleep(HEAD_GAP_S)
        return stream


def _is_hijackable(path: str) -> bool:
    return path.endswith("/attach") or ("/exec/" in path and path.endswith("/start"))


def _header(headers: list[tuple[bytes, bytes]], wanted: bytes) -> bytes:
    return next((value for name, value in headers if name == wanted), b"")


def _head(content_type: str, upgraded: bool) -> bytes:
    lines = [
        b"HTTP/1.1 101 UPGRADED" if upgraded else b"HTTP/1.1 200 OK",
        b"Content-Type: " + content_type.encode(),
        *(name + b": " + value for name, value in HEADERS),
    ]
    if upgraded:
        lines += [b"Connection: Upgrade", b"Upgrade: tcp"]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def caller_of(transport: asyncio.BaseTransport) -> str:
    """Who is at the other end, for the journal: what the kernel or a certificate vouches for."""
    certificate = transport.get_extra_info("peercert")
    if certificate:
        names = [
            value for part in certificate["subject"] for key, value in part if key == "commonName"
        ]
        return f"tls:{names[0]}" if names else "tls"
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family != socket.AF_UNIX:
        return "tcp"
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return f"unix:{_user_name(_CREDENTIALS.unpack(credentials)[1])}"


@lru_cache(maxsize=256)
def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


TakeOver = Callable[[str], Awaitable[HijackStream]]
"""Writes the head, with this content type, and gives the connection."""


class HijackResponse(Response):
    """What an endpoint returns to take the connection over.

    Args:
        handler: Serves the connection until its end. What it raises before it takes the connection
            over is answered as usual; a client that goes away is no fault.
    """

    def __init__(self, handler: Callable[[TakeOver], Awaitable[None]]) -> None:
        super().__init__()
        self._handler = handler

    async def __call__(self, scope: Scope, _: Receive, __: Send) -> None:
        """Serve the connection."""
        taken: list[HijackStream] = []

        async def take_over(content_type: str) -> HijackStream:
            stream: HijackStream = await scope["extensions"][EXTENSION](content_type)
            taken.append(stream)
            return stream

        try:
            await self._handler(take_over)
        except ConnectionError:
            _close(taken)
        except Exception:
            if not taken:
                raise
            logger.exception("Stream of %s", scope["path"])
            _close(taken)
        except BaseException:
            _close(taken)
            raise
        else:
            for stream in taken:
                await stream.finish()


def _close(streams: Iterable[HijackStream]) -> None:
    for stream in streams:
        stream.close()
