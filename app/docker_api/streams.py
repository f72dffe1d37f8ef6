"""Between a process and the connection that a client gave up to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from app.core.errors import SlipwayError
from app.docker_api.detach_keys import DetachScanner
from app.docker_api.frames import MULTIPLEXED_STREAM, RAW_STREAM, frame
from app.docker_api.versions import ApiVersion
from app.domain.log import LogStream
from app.guest.streams import InputStream
from app.services.attachments import OutputPiece

MULTIPLEXED_SINCE = ApiVersion(1, 42)  # before, the type did not tell


def content_type(version: ApiVersion, *, tty: bool) -> str:
    """How the output will be written, as the head tells."""
    return RAW_STREAM if tty or version < MULTIPLEXED_SINCE else MULTIPLEXED_STREAM


def encode(piece: OutputPiece, *, tty: bool) -> bytes:
    """Output as the client takes it apart: a terminal's is raw."""
    return piece.data if tty else frame(piece.stream, piece.data)


def wanted_streams(*, stdout: bool, stderr: bool) -> frozenset[LogStream]:
    """What a client wants to see."""
    return frozenset(
        stream
        for stream, is_wanted in ((LogStream.STDOUT, stdout), (LogStream.STDERR, stderr))
        if is_wanted
    )


async def send_output(
    write: Callable[[bytes], Awaitable[None]],
    output: AsyncIterator[OutputPiece],
    *,
    tty: bool,
    wanted: frozenset[LogStream],
) -> None:
    """Send all output; the process waits for a client that does not take it.

    Raises:
        ConnectionResetError: The client is gone.
    """
    async for piece in output:
        if piece.stream in wanted:
            await write(encode(piece, tty=tty))


async def take_input(
    read: Callable[[], Awaitable[bytes]],
    open_input: Callable[[], Awaitable[InputStream]] | None,
    *,
    closes: bool,
    keys: DetachScanner | None = None,
) -> None:
    """Hand on the client's input until it ends; with `closes` the process's then ends too.

    The detach keys end it as well. What is sent to a process that takes no more, or never did, is
    dropped.
    """
    if open_input is not None:
        with contextlib.suppress(SlipwayError):
            stdin = await open_input()
            is_leaving = False
            while not is_leaving and (data := await read()):
                if keys is not None:
                    data, is_leaving = keys.feed(data)
                if data:
                    await stdin.write(data)
            if closes:
                stdin.write_eof()
            return
    while await read():
        pass


async def converse(
    sending: Awaitable[None],
    taking: Awaitable[None] | None,
    *,
    input_ends_it: bool,
    gone: asyncio.Event | None = None,
) -> None:
    """Run both directions until the output's end, or, if so, that of the input.

    `gone` is set when the client is; then it ends too, also while there is no output to tell.

    Raises:
        ConnectionResetError: The client is gone.
    """
    output = asyncio.ensure_future(sending)
    ends: set[asyncio.Future[Any]] = {output}
    tasks: set[asyncio.Future[Any]] = {output}
    if taking is not None:
        tasks.add(asyncio.ensure_future(taking))
        ends = set(tasks) if input_ends_it else ends
    if gone is not None:
        leaving = asyncio.ensure_future(gone.wait())
        ends, tasks = {*ends, leaving}, {*tasks, leaving}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not output.cancelled():
        output.result()
