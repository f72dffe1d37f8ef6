import asyncio

import pytest

from app.guest.memory_stream import READ_LIMIT_BYTES, memory_stream_pair


async def test_bytes_pass_both_ways_in_order() -> None:
    (left, to_right), (right, to_left) = memory_stream_pair()
    to_right.writelines([b"one ", b"two"])
    to_left.write(b"back")
    assert await right.read(100) == b"one two"
    assert await left.read(100) == b"back"
    to_right.close()
    to_left.close()


async def test_close_delivers_what_was_written_then_the_end() -> None:
    (_left, to_right), (right, to_left) = memory_stream_pair()
    to_right.write(b"last words")
    to_right.close()
    await to_right.wait_closed()
    assert await right.read() == b"last words"
    to_left.close()


async def test_slow_reader_holds_the_writer() -> None:
    (_left, to_right), (right, to_left) = memory_stream_pair()
    total_bytes = 100 * READ_LIMIT_BYTES
    sent_bytes = 0

    async def send() -> None:
        nonlocal sent_bytes
        while sent_bytes < total_bytes:
            to_right.write(bytes(4096))
            sent_bytes += 4096
            await to_right.drain()
        to_right.close()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(send())
        for _ in range(100):
            await asyncio.sleep(0)
        assert sent_bytes < 5 * READ_LIMIT_BYTES
        received_bytes = 0
        while data := await right.read(10_000):
            received_bytes += len(data)
    assert received_bytes == total_bytes
    to_left.close()


async def test_write_after_the_other_end_closed_is_a_broken_pipe() -> None:
    (_left, to_right), (right, to_left) = memory_stream_pair()
    to_left.close()
    to_right.write(b"nobody")
    await asyncio.sleep(0)
    with pytest.raises(ConnectionError):
        await to_right.drain()
    assert await right.read() == b""


async def test_abort_drops_what_was_not_taken() -> None:
    (_left, to_right), (right, to_left) = memory_stream_pair()
    while to_right.transport.get_write_buffer_size() == 0:
        to_right.write(bytes(READ_LIMIT_BYTES))
    to_right.transport.abort()
    data = await right.read()
    assert len(data) < 4 * READ_LIMIT_BYTES
    to_left.close()
