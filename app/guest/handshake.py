"""How a connection begins and ends (docs/channel.md, Connecting)."""

import asyncio
import contextlib
import secrets
from asyncio import StreamReader, StreamWriter

from app.core.errors import CorruptData, DeadlineExceeded, Unavailable, Unsupported
from app.core.units import KIB, MIB
from app.guest.fields import encode_fields
from app.guest.frames import FrameParser, MessageAssembler, encode_resync
from app.guest.hello import HelloInfo, decode_hello
from app.guest.protocol import PROTOCOL_VERSION, FrameType, Tag

VERSION_MIN = max(PROTOCOL_VERSION - 1, 1)
NONCE_BYTES = 16
MAX_INBOUND_MESSAGE_BYTES = MIB  # HELLO_ACK grows with streams and processes
READ_BYTES = 256 * KIB
_CLOSE_TIMEOUT_S = 1.0


async def resync(
    reader: StreamReader, writer: StreamWriter, parser: FrameParser, *, timeout_s: float
) -> HelloInfo:
    """Say HELLO and wait for its HELLO_ACK; afterwards `parser` stands right behind that.

    Raises:
        DeadlineExceeded: The agent did not answer in time.
        Unavailable: The connection was closed.
        Unsupported: The agent speaks no version that we speak.
        CorruptData: The answer is broken.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    hello = encode_fields(
        [
            (Tag.NONCE, nonce),
            (Tag.VERSION_MIN, VERSION_MIN),
            (Tag.VERSION_MAX, PROTOCOL_VERSION),
        ]
    )
    # Not drained: a guest that still boots reads nothing, and there is a deadline to watch.
    writer.write(encode_resync(hello))
    try:
        async with asyncio.timeout(timeout_s):
            payload = await _read_hello_ack(reader, parser, nonce)
    except TimeoutError as exc:
        raise DeadlineExceeded("the agent does not answer HELLO") from exc
    info = decode_hello(payload)
    if not VERSION_MIN <= info.version <= PROTOCOL_VERSION:
        raise Unsupported(
            f"The agent {info.agent_version} speaks no protocol version from {VERSION_MIN} to "
            f"{PROTOCOL_VERSION}",
            advice="Stop the container and start it again with the present guest.",
        )
    return info


async def _read_hello_ack(reader: StreamReader, parser: FrameParser, nonce: bytes) -> bytes:
    assembler = MessageAssembler(MAX_INBOUND_MESSAGE_BYTES)
    is_found = False
    while True:
        data = await reader.read(READ_BYTES)
        if not data:
            raise Unavailable("the connection was closed before the agent answered HELLO")
        parser.feed(data)
        is_found = is_found or parser.seek_hello_ack(nonce)
        while is_found and (frame := parser.next_frame()) is not None:
            if frame.type is not FrameType.HELLO_ACK:
                raise CorruptData(f"Channel lost: {frame.type.name} within HELLO_ACK")
            message = assembler.add(frame)
            if message is not None:
                return message


async def abort(writer: StreamWriter) -> None:
    """Close at once: what was not sent is sent again on the next connection."""
    writer.close()
    writer.transport.abort()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await writer.wait_closed()
