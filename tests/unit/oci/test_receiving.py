"""The bytes of an upload, as they come."""

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from app.core.errors import CorruptData, DeadlineExceeded, ResourceExhausted
from app.oci import receiving
from app.oci.compression import Compression
from app.oci.receiving import ReceivedFile, receive
from app.oci.work import Workers
from tests.unit.oci.archives import Item, make_tar, stream

TAR = make_tar(Item("a", bytes(3_000_000)))


def _ignore(_: int) -> None:
    """Progress nobody asked for."""


async def receive_all(
    chunks: AsyncIterator[bytes],
    path: Path,
    reserve_bytes: int = 0,
    on_bytes: Callable[[int], None] = _ignore,
) -> ReceivedFile:
    workers = Workers()
    try:
        return await receive(chunks, path, workers, reserve_bytes=reserve_bytes, on_bytes=on_bytes)
    finally:
        await workers.close()


@pytest.mark.parametrize("chunk_bytes", [1000, 65536, 10_000_000])
async def test_receive_stores_and_hashes(tmp_path: Path, chunk_bytes: int) -> None:
    seen: list[int] = []
    received = await receive_all(stream(TAR, chunk_bytes), tmp_path / "upload", 0, seen.append)
    assert (tmp_path / "upload").read_bytes() == TAR
    assert received.digest.hex == hashlib.sha256(TAR).hexdigest()
    assert received.size_bytes == len(TAR)
    assert received.compression is Compression.NONE
    assert seen == sorted(seen)


async def test_receive_recognises_compression(tmp_path: Path) -> None:
    received = await receive_all(stream(gzip.compress(TAR)), tmp_path / "upload")
    assert received.compression is Compression.GZIP


async def test_receive_short_compressed_upload(tmp_path: Path) -> None:
    received = await receive_all(stream(gzip.compress(b"x")), tmp_path / "upload")
    assert received.size_bytes < 512


async def test_receive_refuses_rubbish_at_once(tmp_path: Path) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"this is no archive " * 100

    with pytest.raises(CorruptData, match="neither a tar nor a compressed one"):
        await receive_all(endless(), tmp_path / "upload")
    assert taken == 1


async def test_receive_refuses_nothing(tmp_path: Path) -> None:
    with pytest.raises(CorruptData, match="empty"):
        await receive_all(stream(b""), tmp_path / "upload")


async def test_receive_keeps_the_reserve(tmp_path: Path) -> None:
    with pytest.raises(ResourceExhausted, match="are free on the disk") as caught:
        await receive_all(stream(TAR), tmp_path / "upload", reserve_bytes=1 << 60)
    assert "MiB free" in caught.value.advice


async def test_receive_stalled_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "CHUNK_TIMEOUT_S", 0.05)
    stalled = False

    async def stall() -> AsyncIterator[bytes]:
        nonlocal stalled
        yield TAR[:1000]
        stalled = True
        await asyncio.get_running_loop().create_future()

    with pytest.raises(DeadlineExceeded, match="nothing came"):
        await receive_all(stall(), tmp_path / "upload")
    assert stalled


async def test_receive_unwritable_directory(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="receiving the archive: No such file"):
        await receive_all(stream(TAR), tmp_path / "missing" / "upload")
