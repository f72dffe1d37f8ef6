"""First step of an import: the bytes, as they come, into a file."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app.core.errors import CorruptData, DeadlineExceeded, ResourceExhausted
from app.core.units import MIB
from app.domain.reference import Digest
from app.oci.compression import Compression, detect_compression
from app.oci.streams import CHUNK_BYTES
from app.oci.tar_reader import BLOCK_BYTES, looks_like_tar
from app.oci.work import Workers, disk_error

CHUNK_TIMEOUT_S = 120.0
SPACE_CHECK_BYTES = 32 * MIB


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """An upload, complete on disk.

    Attributes:
        compression: Of the whole file.
        digest: Of the bytes as they came.
    """

    path: Path
    size_bytes: int
    digest: Digest
    compression: Compression


class GuardedFile:
    """A file that stops growing before the disk is full.

    Args:
        file: Where bytes go.
        directory: On the disk whose free space counts.
        reserve_bytes: What must stay free.
        what: Begins the error's text.
    """

    def __init__(self, file: BinaryIO, directory: Path, reserve_bytes: int, what: str) -> None:
        self._file = file
        self._directory = directory
        self._reserve_bytes = reserve_bytes
        self._what = what
        self._unchecked_bytes = SPACE_CHECK_BYTES

    def write(self, data: bytes | bytearray, /) -> None:
        """Append.

        Raises:
            ResourceExhausted: Too little space would stay free.
        """
        self._unchecked_bytes += len(data)
        if self._unchecked_bytes >= SPACE_CHECK_BYTES:
            self._unchecked_bytes = 0
            check_space(self._directory, self._reserve_bytes, self._what)
        self._file.write(data)

    def sync(self) -> None:
        """Make what was written durable."""
        self._file.flush()
        os.fsync(self._file.fileno())


def check_space(directory: Path, reserve_bytes: int, what: str) -> None:
    """Raise ResourceExhausted if less than `reserve_bytes` is free on the disk."""
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < reserve_bytes:
        raise ResourceExhausted(
            f"{what}: only {free_bytes // MIB:,} MiB are free on the disk of {directory}",
            advice=f"Slipway keeps {reserve_bytes // MIB:,} MiB free. Remove unused images or "
            "containers, or move the data directory to a larger disk.",
        )


async def receive(
    chunks: AsyncIterator[bytes],
    path: Path,
    workers: Workers,
    *,
    reserve_bytes: int,
    on_bytes: Callable[[int], None],
) -> ReceivedFile:
    """Write a stream to `path`, hashing it; what is no archive is refused at its first block.

    Raises:
        CorruptData: Empty, or neither a tar nor a known compression.
        DeadlineExceeded: Nothing came for CHUNK_TIMEOUT_S seconds.
        ResourceExhausted: The disk is (nearly) full.
    """
    writer: _Writer | None = None
    try:
        writer = await workers.write(lambda: _Writer(path, reserve_bytes))
        iterator = aiter(chunks)
        while (data := await _next_chunk(iterator)) is not None:
            if writer.add(data):
                await workers.write(writer.flush)
                on_bytes(writer.size_bytes)
        return await workers.write(writer.finish)
    except OSError as error:
        raise disk_error(error, "receiving the archive") from error
    finally:
        if writer is not None:
            await workers.write(writer.close)


async def _next_chunk(iterator: AsyncIterator[bytes]) -> bytes | None:
    try:
        async with asyncio.timeout(CHUNK_TIMEOUT_S):
            return await anext(iterator)
    except StopAsyncIteration:
        return None
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"receiving the archive: nothing came for {CHUNK_TIMEOUT_S:.0f} s",
            advice="The upload stalled; send it again.",
        ) from error


class _Writer:
    """Collects chunks into large writes; all but `add` block."""

    def __init__(self, path: Path, reserve_bytes: int) -> None:
        self._path = path
        self._raw = path.open("wb")
        self._file = GuardedFile(self._raw, path.parent, reserve_bytes, "receiving the archive")
        self._hash = hashlib.sha256()
        self._pending = bytearray()
        self._head = b""
        self.size_bytes = 0

    def add(self, data: bytes) -> bool:
        """Take a chunk; True if it is time to flush."""
        self._pending += data
        return len(self._pending) >= CHUNK_BYTES or (
            not self._head and len(self._pending) >= BLOCK_BYTES
        )

    def flush(self) -> None:
        if not self._head:
            self._head = bytes(self._pending[:BLOCK_BYTES])
            if not detect_compression(self._head) and not looks_like_tar(self._head):
                raise CorruptData(
                    "the upload is no image archive: neither a tar nor a compressed one",
                    advice="Upload what `docker save` or `docker export` writes, or a tar of a "
                    "root filesystem.",
                )
        self._hash.update(self._pending)
        self._file.write(self._pending)
        self.size_bytes += len(self._pending)
        self._pending = bytearray()

    def finish(self) -> ReceivedFile:
        if not self._pending and not self.size_bytes:
            raise CorruptData("the upload is empty", advice="Choose an image archive.")
        self.flush()
        self._file.sync()
        return ReceivedFile(
            self._path,
            self.size_bytes,
            Digest(self._hash.hexdigest()),
            detect_compression(self._head),
        )

    def close(self) -> None:
        self._raw.close()
