"""TLS whose two directions end one by one.

asyncio's own drops the connection when the client says that it sends no more, which Docker's
clients do on every attach and exec: their output would be lost. So TLS runs inside the protocol.
"""

import asyncio
import contextlib
import logging
import ssl
from pathlib import Path
from typing import Any

from app.core.errors import InvalidArgument
from app.core.units import KIB
from app.docker_api.hijack import HijackProtocol

HANDSHAKE_TIMEOUT_S = 10.0
READ_BYTES = 64 * KIB

logger = logging.getLogger(__name__)


def make_context(*, ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's context that admits only clients whose certificate `ca` has signed.

    Raises:
        InvalidArgument: A file is missing or not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except OSError as exc:  # ssl.SSLError is one
        raise InvalidArgument(
            f"Can't use certificate {certificate} with key {key}: {exc.strerror or exc}",
            field="SLIPWAY_DOCKER_TLS_CERT",
            advice="Both must be PEM files, readable for the engine, that belong together.",
        ) from exc
    try:
        context.load_verify_locations(ca)
    except OSError as exc:
        raise InvalidArgument(
            f"Can't use certificate authority {ca}: {exc.strerror or exc}",
            field="SLIPWAY_DOCKER_TLS_CA",
            advice="It must be a PEM file, readable for the engine.",
        ) from exc
    return context


def tls_protocol(context: ssl.SSLContext) -> type[asyncio.Protocol]:
    """The protocol class for a server."""

    class Bound(TlsProtocol):
        def __init__(self, **more: Any) -> None:  # noqa: ANN401  (uvicorn's own signature)
            super().__init__(context, HijackProtocol(**more))

    return Bound


class TlsTransport(asyncio.Transport):
    """What the HTTP protocol writes to."""

    def __init__(self, protocol: "TlsProtocol", extra: dict[str, Any]) -> None:
        super().__init__(extra)
        self._protocol = protocol
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        if data and not self._is_closing:
            self._protocol.encrypt(bytes(data))

    def can_write_eof(self) -> bool:
        """TLS can."""
        return True

    def write_eof(self) -> None:
        """End our direction."""
        self._protocol.end_output()

    def close(self) -> None:
        """Send what is written, then close."""
        if not self._is_closing:
            self._is_closing = True
            self._protocol.end_output()
            self._protocol.raw.close()

    def abort(self) -> None:
        """Close now."""
        self._is_closing = True
        self._protocol.raw.abort()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._is_closing or self._protocol.raw.is_closing()

    def pause_reading(self) -> None:
        """Hold the client back."""
        self._protocol.raw.pause_reading()

    def resume_reading(self) -> None:
        """Let the client go on."""
        self._protocol.raw.resume_reading()

    def is_reading(self) -> bool:
        """Whether bytes are taken."""
        return self._protocol.raw.is_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give the connection to another protocol (a websocket's)."""
        self._protocol.inner = protocol  # type: ignore[assignment]

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Who has the connection."""
        return self._protocol.inner

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has not taken."""
        return self._protocol.raw.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When to hold the writer back."""
        self._protocol.raw.set_write_buffer_limits(high, low)


class TlsProtocol(asyncio.Protocol):
    """One connection: handshake, then `inner` on the decrypted bytes."""

    raw: asyncio.Transport

    def __init__(self, context: ssl.SSLContext, inner: asyncio.Protocol) -> None:
        self.inner = inner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._engine = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_up = False
        self._output_ended = False
        self._input_ended = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the handshake, not for ever."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream socket
        self.raw = transport
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(HANDSHAKE_TIMEOUT_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Decrypt; an end in good order is that of the client's direction only."""
        self._incoming.write(data)
        try:
            if not self._is_up:
                self._shake_hands()
            while not self._input_ended:
                plain = self._engine.read(READ_BYTES)
                if not plain:
                    self._end_input()
                else:
                    self.inner.data_received(plain)
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLZeroReturnError:
            self._end_input()
        except ssl.SSLError as exc:
            logger.info("A TLS client was refused: %s", exc.reason or exc)
            self._flush()  # the alert that tells the client
            self.raw.close()

    def _shake_hands(self) -> None:
        self._engine.do_handshake()
        self._is_up = True
        if self._deadline is not None:
            self._deadline.cancel()
        self._flush()
        extra = {name: self.raw.get_extra_info(name) for name in ("peername", "sockname", "socket")}
        extra |= {"sslcontext": self._engine.context, "peercert": self._engine.getpeercert()}
        self.inner.connection_made(TlsTransport(self, extra))

    def _end_input(self) -> None:
        if self._input_ended:
            return
        self._input_ended = True
        if not self.inner.eof_received():
            self.end_output()
            self.raw.close()

    def encrypt(self, data: bytes) -> None:
        """Send bytes of `inner`."""
        if self._output_ended or self.raw.is_closing():
            return
        self._engine.write(data)
        self._flush()

    def end_output(self) -> None:
        """Tell the client that nothing follows."""
        if self._is_up and not self._output_ended:
            self._output_ended = True
            with contextlib.suppress(ssl.SSLError):  # the client's own end is still to come
                self._engine.unwrap()
            self._flush()

    def _flush(self) -> None:
        if encrypted := self._outgoing.read():
            self.raw.write(encrypted)

    def eof_received(self) -> bool | None:
        """The client has closed its direction without saying so in TLS."""
        if not self._is_up:
            return None
        if not self._input_ended:
            self._input_ended = True
            return self.inner.eof_received()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._is_up:
            self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        if self._is_up:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        if self._is_up:
            self.inner.resume_writing()
