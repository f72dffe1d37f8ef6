"""Layers on their way from a registry: each comes once, however many pulls want it.

    connection -> pipe -> thread: scan (digests, entries) and blob file -> disk -> blobs/

The layer is judged while it comes; its disk is made the moment its last byte is verified, while
other layers still come. Disk and blob then go to their places, which are named by content; they
are pinned by every pull that waits, and swept if none publishes them.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from app.core.errors import CorruptData
from app.domain.reference import Digest
from app.domain.registry import LayerStage
from app.oci.compression import SNIFF_BYTES, Compression, detect_compression
from app.oci.config import Descriptor
from app.oci.conversion import ScannedLayer, convert_layer, scan_layer
from app.oci.importer import PreparedLayer, step_timeout_s
from app.oci.layer_disks import LayerDisks
from app.oci.layout import Layout
from app.oci.limits import ImportLimits
from app.oci.pipe import Pipe
from app.oci.receiving import GuardedFile
from app.oci.streams import CancelToken
from app.oci.work import Workers, settle

DOWNLOAD_TIMEOUT_S = 24 * 3600.0  # a stalled one ends by the connection's own deadline
PROGRESS_PAUSE_S = 0.1

Open = Callable[[int], AsyncGenerator[bytes, None]]
Tell = Callable[[LayerStage, int, int], None]


@dataclass(eq=False)
class _User:
    """A pull that waits for a layer.

    Attributes:
        open_blob: Begins the blob's bytes at an offset, over that pull's connection.
        has_left: It has gone, and its connection goes.
    """

    open_blob: Open
    tell: Tell
    has_left: bool = False


@dataclass
class _Fetch:
    """One layer on its way, or come.

    Attributes:
        feeding: Takes bytes from the connection of `feeder`.
        done_bytes: How many have come.
    """

    descriptor: Descriptor
    diff_id: Digest
    users: list[_User] = field(default_factory=list)
    task: "asyncio.Task[PreparedLayer] | None" = None
    feeder: _User | None = None
    feeding: "asyncio.Task[bool] | None" = None
    done_bytes: int = 0
    told_at: float = 0.0
    last: tuple[LayerStage, int, int] | None = None

    @property
    def has_failed(self) -> bool:
        """Whether it has ended without the layer."""
        task = self.task
        return task is not None and task.done() and (task.cancelled() or bool(task.exception()))

    def tell(self, stage: LayerStage, done: int = 0, total: int = 0) -> None:
        self.last = (stage, done, total)
        for user in self.users:
            user.tell(stage, done, total)

    async def leave(self, user: _User) -> None:
        """Let a user go; afterwards nothing uses its connection."""
        user.has_left = True
        self.users.remove(user)
        if not self.users and self.task is not None:
            self.task.cancel()
            await settle(self.task)
        elif self.feeder is user and self.feeding is not None:
            self.feeding.cancel()
            await settle(self.feeding)


class LayerFetches:
    """Layers that pulls wait for right now.

    Args:
        parallel: How many come at the same time.
    """

    def __init__(
        self,
        layout: Layout,
        disks: LayerDisks,
        limits: ImportLimits,
        *,
        parallel: int,
    ) -> None:
        self._layout = layout
        self._disks = disks
        self._limits = limits
        self._workers = Workers(parallel)  # apart: a slow network must not hold up imports
        self._slots = asyncio.Semaphore(parallel)
        self._running: dict[tuple[Digest, Digest], _Fetch] = {}

    async def close(self) -> None:
        """Wait for the threads. Cancel running pulls first."""
        await self._workers.close()

    @contextlib.asynccontextmanager
    async def wanted(
        self, descriptor: Descriptor, diff_id: Digest, open_blob: Open, tell: Tell
    ) -> AsyncIterator["asyncio.Task[PreparedLayer]"]:
        """Have a layer come; the caller has pinned it, and keeps the block until it is published.

        When the pull that began leaves, another one's connection takes over where it was; when
        the last one leaves, what is under way ends.

        Args:
            descriptor: Its blob.
            diff_id: What it must expand to.
            open_blob: Begins the blob's bytes at an offset.
            tell: Hears how far it is, in the event loop.
        """
        key = (descriptor.digest, diff_id)
        user = _User(open_blob, tell)
        fetch = self._running.get(key)
        if fetch is None or fetch.has_failed:
            fetch = self._running[key] = _Fetch(descriptor, diff_id)
        fetch.users.append(user)
        if fetch.task is None:
            fetch.task = asyncio.create_task(self._fetch(fetch))
        if fetch.last is not None:
            tell(*fetch.last)
        try:
            yield fetch.task
        finally:
            if len(fetch.users) == 1 and self._running.get(key) is fetch:
                del self._running[key]
            await fetch.leave(user)

    async def _fetch(self, fetch: _Fetch) -> PreparedLayer:
        what = f"layer {fetch.descriptor.digest.short}"
        fetch.tell(LayerStage.PULLING)
        if self._slots.locked():
            fetch.tell(LayerStage.WAITING)
        async with self._layout.staging() as staging:
            blob = staging / "blob"
            async with self._slots:
                compression, scanned = await self._download(fetch, blob, what)
            fetch.tell(LayerStage.DOWNLOADED)
            await self._make_disk(fetch, scanned, compression, blob, staging, what)
            await asyncio.to_thread(self._layout.add_blob, fetch.descriptor.digest, blob)
        fetch.tell(LayerStage.PULLED)
        return PreparedLayer(fetch.diff_id, fetch.descriptor, scanned.unpacked_bytes, None)

    async def _download(
        self, fetch: _Fetch, blob: Path, what: str
    ) -> tuple[Compression, ScannedLayer]:
        pipe = Pipe()
        scanning = asyncio.ensure_future(
            self._workers.run(
                lambda token: self._scan(fetch, pipe, blob, what, token),
                what=f"downloading {what}",
                timeout_s=DOWNLOAD_TIMEOUT_S,
            )
        )
        try:
            await self._feed(fetch, pipe)
            return await scanning
        finally:
            pipe.break_off()
            if not scanning.done():
                scanning.cancel()
            await settle(scanning)

    async def _feed(self, fetch: _Fetch, pipe: Pipe) -> None:
        """Bring the blob's bytes to the scan, over one connection after the other if need be."""
        while True:
            feeder = fetch.feeder = fetch.users[0]
            feeding = fetch.feeding = asyncio.create_task(self._feed_from(feeder, fetch, pipe))
            try:
                is_whole = await feeding
            except asyncio.CancelledError:
                if feeder.has_left and fetch.users:
                    continue
                raise
            if is_whole:
                pipe.end()
                fetch.tell(LayerStage.VERIFYING)
            return

    async def _feed_from(self, feeder: _User, fetch: _Fetch, pipe: Pipe) -> bool:
        """False if the scan has refused the layer: it tells why."""
        loop = asyncio.get_running_loop()
        total = fetch.descriptor.size_bytes
        async with contextlib.aclosing(feeder.open_blob(fetch.done_bytes)) as pieces:
            async for piece in pieces:
                if not await pipe.write(piece):
                    return False
                fetch.done_bytes += len(piece)
                if loop.time() >= fetch.told_at + PROGRESS_PAUSE_S or fetch.done_bytes == total:
                    fetch.told_at = loop.time()
                    fetch.tell(LayerStage.DOWNLOADING, fetch.done_bytes, total)
        return True

    def _scan(
        self, fetch: _Fetch, pipe: Pipe, blob: Path, what: str, token: CancelToken
    ) -> tuple[Compression, ScannedLayer]:
        """Runs in a thread: judge the layer while it comes, and keep it as it comes."""
        token.on_cancel(pipe.break_off)
        try:
            source = _Peeked(pipe)
            compression = detect_compression(source.head)
            with blob.open("wb") as raw:
                reserve_bytes = self._limits.reserve_bytes
                copy = GuardedFile(raw, blob.parent, reserve_bytes, f"storing {what}")
                scanned = scan_layer(
                    source, compression, what=what, limits=self._limits, token=token, tee=copy
                )
                copy.sync()
            _verify(fetch, scanned)
        finally:
            pipe.break_off()
        return compression, scanned

    async def _make_disk(
        self,
        fetch: _Fetch,
        scanned: ScannedLayer,
        compression: Compression,
        blob: Path,
        staging: Path,
        what: str,
    ) -> None:
        loop = asyncio.get_running_loop()
        size, unpacked = fetch.descriptor.size_bytes, max(scanned.unpacked_bytes, 1)
        told = 0

        def report(count: int) -> None:
            nonlocal told
            if (count - told) * 20 >= unpacked:
                told = count
                loop.call_soon_threadsafe(
                    fetch.tell, LayerStage.EXTRACTING, min(size, size * count // unpacked), size
                )

        def convert(target: Path, token: CancelToken) -> None:
            with blob.open("rb") as file:
                convert_layer(
                    file, scanned, compression, target, what=what, token=token, on_bytes=report
                )

        fetch.tell(LayerStage.EXTRACTING, 0, size)
        timeout_s = step_timeout_s(scanned.unpacked_bytes)
        await self._disks.ensure(fetch.diff_id, convert, staging=staging, timeout_s=timeout_s)


class _Peeked:
    """A source whose first bytes have been looked at."""

    def __init__(self, source: Pipe) -> None:
        self._source = source
        self.head = b""
        while len(self.head) < SNIFF_BYTES and (data := source.read(SNIFF_BYTES)):
            self.head += data
        self._rest = self.head

    def read(self, size: int, /) -> bytes:
        if not self._rest:
            return self._source.read(size)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def _verify(fetch: _Fetch, scanned: ScannedLayer) -> None:
    if scanned.blob_digest != fetch.descriptor.digest:
        raise CorruptData(
            f"filesystem layer verification failed for digest {fetch.descriptor.digest}",
            advice="The registry sent something else; try again later.",
        )
    if scanned.diff_id != fetch.diff_id:
        raise CorruptData(
            f"layer {fetch.descriptor.digest} expands to {scanned.diff_id}, not to "
            f"{fetch.diff_id} as the image's configuration says"
        )
