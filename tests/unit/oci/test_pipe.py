"""Bytes from the loop to a thread."""

import asyncio

import pytest

from app.oci.pipe import Pipe
from app.oci.streams import ImportCancelled


def read_all(pipe: Pipe, size: int = 3) -> bytes:
    found = b""
    while data := pipe.read(size):
        assert len(data) <= size
        found += data
    return found


async def test_everything_arrives_in_order() -> None:
    pipe = Pipe(held_max_bytes=8)
    reading = asyncio.create_task(asyncio.to_thread(read_all, pipe))
    pieces = [b"%d," % number for number in range(200)]
    for piece in pieces:
        assert await pipe.write(piece)
    pipe.end()
    async with asyncio.timeout(5):
        assert await reading == b"".join(pieces)


async def test_a_full_pipe_holds_the_writer_back() -> None:
    pipe = Pipe(held_max_bytes=8)
    await pipe.write(b"12345678")
    writing = asyncio.create_task(pipe.write(b"9"))
    await asyncio.sleep(0)
    assert not writing.done()
    assert await asyncio.to_thread(pipe.read, 100) == b"12345678"
    async with asyncio.timeout(5):
        assert await writing


async def test_a_reader_that_gives_up_frees_the_writer() -> None:
    pipe = Pipe(held_max_bytes=1)
    await pipe.write(b"12345678")
    writing = asyncio.create_task(pipe.write(b"9"))
    await asyncio.sleep(0)
    await asyncio.to_thread(pipe.break_off)
    async with asyncio.timeout(5):
        assert not await writing
    assert not await pipe.write(b"more")


async def test_a_waiting_reader_is_woken() -> None:
    pipe = Pipe()
    reading = asyncio.create_task(asyncio.to_thread(pipe.read, 1))
    await asyncio.sleep(0)
    pipe.break_off()
    async with asyncio.timeout(5):
        with pytest.raises(ImportCancelled):
            await reading
