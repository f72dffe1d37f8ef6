"""The import pipeline: receive, recognise, verify, convert; publishing is the store's.

    chunks -> ingest/x/upload -> [expand] -> members -> per layer: scan (verify) -> disk

Everything lies in a staging directory until the whole archive has been found good; only layer
disks, which are content-addressed, go to their place as they are made.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from app.core.errors import CorruptData, InvalidArgument
from app.core.units import MIB
from app.domain.image import ImageConfig, ImportProgress, ImportStage
from app.domain.reference import Digest, Reference
from app.oci.archive import ArchiveIndex, index_archive
from app.oci.archive_images import ArchiveImage, ArchiveLayer, read_images
from app.oci.compression import SNIFF_BYTES, Compression, detect_compression, open_decompressed
from app.oci.config import (
    MEDIA_CONFIG,
    Descriptor,
    ImageDocument,
    digest_of,
    layer_media_type,
    make_image_document,
    make_manifest,
    parse_image_document,
)
from app.oci.conversion import ScannedLayer, convert_layer, scan_layer
from app.oci.layer_disks import LayerDisks
from app.oci.layout import Layout
from app.oci.limits import ImportLimits
from app.oci.receiving import GuardedFile, ReceivedFile, receive
from app.oci.streams import CHUNK_BYTES, CancelToken, FileRange, HashingSource, Source
from app.oci.work import Workers

T = TypeVar("T")

STEP_TIMEOUT_BASE_S = 300.0
STEP_RATE_BYTES_PER_S = MIB  # slower than any disk in use: a deadline, not a plan
PROGRESS_STEP_BYTES = 8 * MIB

Report = Callable[[ImportProgress], None]


@dataclass(frozen=True, slots=True)
class PreparedLayer:
    """A verified layer whose disk exists.

    Attributes:
        blob: Staged blob to publish; None if the store has it.
    """

    diff_id: Digest
    descriptor: Descriptor
    unpacked_bytes: int
    blob: Path | None


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image ready to be published."""

    references: tuple[Reference, ...]
    document: ImageDocument
    config: bytes
    manifest: bytes
    layers: tuple[PreparedLayer, ...]


@dataclass(frozen=True, slots=True)
class KnownLayer:
    """A layer that the store holds already, by diff_id."""

    descriptor: Descriptor
    unpacked_bytes: int


@dataclass(frozen=True, slots=True)
class RootfsOptions:
    """What a root filesystem without a configuration becomes.

    Attributes:
        created: Recorded creation time, or None for none.
        architecture: In Go's spelling.
        comment: For the image's history.
        is_forced: The upload is a root filesystem, even if it looks like an image archive.
    """

    config: ImageConfig
    created: datetime | None
    architecture: str
    comment: str = ""
    is_forced: bool = False


class Importer:
    """Prepares one import; used once.

    Args:
        known: Layers of the store by diff_id; they are not read again.
        report: Called in the event loop.
        pin: Called with diff_ids of disks and digests of blobs to be kept from sweeping.
    """

    def __init__(
        self,
        layout: Layout,
        workers: Workers,
        disks: LayerDisks,
        *,
        staging: Path,
        limits: ImportLimits,
        known: Mapping[Digest, KnownLayer],
        report: Report,
        pin: Callable[[Digest], None],
    ) -> None:
        self._layout = layout
        self._workers = workers
        self._disks = disks
        self._staging = staging
        self._limits = limits
        self._known = known
        self._report = report
        self._pin = pin
        self._loop = asyncio.get_running_loop()
        self._done: dict[Digest, PreparedLayer] = {}

    async def prepare(
        self, chunks: AsyncIterator[bytes], options: RootfsOptions
    ) -> list[PreparedImage]:
        """Read the whole stream and make its layers' disks.

        Raises:
            CorruptData, InvalidArgument, Unsupported: The archive is refused.
            ResourceExhausted: The disk is full.
            DeadlineExceeded: The upload or a step stalled.
        """
        upload = await receive(
            chunks,
            self._staging / "upload",
            self._workers,
            reserve_bytes=self._limits.reserve_bytes,
            on_bytes=lambda count: self._tell(ImportStage.RECEIVING, "", count, None),
        )
        if options.is_forced:
            return [await self._prepare_rootfs(upload, options)]
        index = await self._run(
            lambda token: self._open(upload, token), upload.size_bytes, "reading"
        )
        if index is None:
            return [await self._prepare_rootfs(upload, options)]
        try:
            images = await asyncio.to_thread(read_images, index, architecture=options.architecture)
            return [await self._prepare_image(index, image) for image in images]
        finally:
            await asyncio.to_thread(index.file.close)

    def _open(self, upload: ReceivedFile, token: CancelToken) -> ArchiveIndex | None:
        """Tell an image archive, expanded if need be, from a root filesystem (None)."""
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(upload.path.open("rb"))
            source = self._plain(upload, FileRange(file, 0, upload.size_bytes), token)
            index = index_archive(source, file, limits=self._limits, token=token)
            if upload.compression and index.may_hold_images:
                expanded = self._expand(upload, token)
                index.file = stack.enter_context(expanded.open("rb"))
            if index.holds_images:
                if index.file is not file:
                    file.close()
                    upload.path.unlink()
                stack.pop_all()
                return index
            index.check_not_legacy()
            return None

    def _plain(self, upload: ReceivedFile, source: Source, token: CancelToken) -> Source:
        if not upload.compression:
            return source
        counted = HashingSource(source, token=token, what="the archive")
        return open_decompressed(counted, upload.compression, what="the archive")

    def _expand(self, upload: ReceivedFile, token: CancelToken) -> Path:
        """Uncompress an image archive, whose members must be read in any order."""
        path = self._staging / "expanded"
        with upload.path.open("rb") as file, path.open("wb") as raw:
            target = GuardedFile(
                raw, self._staging, self._limits.reserve_bytes, "expanding the archive"
            )
            source = self._plain(upload, FileRange(file, 0, upload.size_bytes), token)
            while data := source.read(CHUNK_BYTES):
                target.write(data)
        return path

    async def _prepare_image(self, index: ArchiveIndex, image: ArchiveImage) -> PreparedImage:
        layers = [
            await self._prepare_layer(index, layer, number, len(image.layers))
            for number, layer in enumerate(image.layers, start=1)
        ]
        manifest = image.manifest or _manifest_for(image.config, layers)
        return PreparedImage(
            image.references, image.document, image.config, manifest, tuple(layers)
        )

    async def _prepare_layer(
        self, index: ArchiveIndex, layer: ArchiveLayer, number: int, count: int
    ) -> PreparedLayer:
        done = self._done.get(layer.diff_id) or await self._reuse(layer)
        if done is None:
            what = f"layer {number} of {count} ({layer.diff_id.short})"
            blob = self._staging / f"{layer.diff_id.hex}.blob"
            compression, scanned = await self._run(
                lambda token: self._stage_layer(index, layer, blob, what, token),
                layer.member.size_bytes,
                f"verifying {what}",
            )
            await self._make_disk(blob, scanned, compression, what)
            done = _prepared(scanned, compression, blob)
        self._done[layer.diff_id] = done
        return done

    async def _reuse(self, layer: ArchiveLayer) -> PreparedLayer | None:
        """The layer from the store, unless the archive insists on another blob or it is lost."""
        known = self._known.get(layer.diff_id)
        if known is None or layer.blob_digest not in (None, known.descriptor.digest):
            return None
        self._pin(layer.diff_id)
        self._pin(known.descriptor.digest)
        paths = (
            self._layout.disk_path(layer.diff_id),
            self._layout.blob_path(known.descriptor.digest),
        )
        if not all([await asyncio.to_thread(path.exists) for path in paths]):
            return None
        return PreparedLayer(layer.diff_id, known.descriptor, known.unpacked_bytes, None)

    def _stage_layer(
        self, index: ArchiveIndex, layer: ArchiveLayer, blob: Path, what: str, token: CancelToken
    ) -> tuple[Compression, ScannedLayer]:
        """Copy a layer out of the archive, verifying it on the way."""
        member = layer.member
        head = FileRange(index.file, member.offset, member.size_bytes).read(SNIFF_BYTES)
        compression = detect_compression(head)
        with blob.open("wb") as raw:
            copy = GuardedFile(raw, self._staging, self._limits.reserve_bytes, f"storing {what}")
            scanned = scan_layer(
                FileRange(index.file, member.offset, member.size_bytes),
                compression,
                what=what,
                limits=self._limits,
                token=token,
                tee=copy,
                on_bytes=self._reporter(
                    ImportStage.VERIFYING, layer.diff_id.short, member.size_bytes
                ),
            )
            copy.sync()
        if scanned.blob_bytes != member.size_bytes:
            raise CorruptData(f"{what} is cut short in the archive")
        if layer.blob_digest not in (None, scanned.blob_digest):
            raise _lying(what, "digest", layer.blob_digest, scanned.blob_digest)
        if scanned.diff_id != layer.diff_id:
            raise _lying(what, "diff_id", layer.diff_id, scanned.diff_id)
        return compression, scanned

    async def _prepare_rootfs(self, upload: ReceivedFile, options: RootfsOptions) -> PreparedImage:
        """Make an image of one layer, as `docker import` does."""
        what = "the root filesystem"
        scanned = await self._run(
            lambda token: self._scan_rootfs(upload, what, token),
            upload.size_bytes,
            f"verifying {what}",
        )
        if scanned.index.is_empty:
            raise InvalidArgument(f"{what} is an empty archive", advice="Choose another file.")
        await self._make_disk(upload.path, scanned, upload.compression, what)
        layer = _prepared(scanned, upload.compression, upload.path)
        config = make_image_document(
            options.config,
            created=options.created,
            architecture=options.architecture,
            diff_ids=[scanned.diff_id],
            comment=options.comment,
        )
        document = parse_image_document(config, what="image")
        return PreparedImage((), document, config, _manifest_for(config, [layer]), (layer,))

    async def prepare_layer(
        self, chunks: AsyncIterator[bytes], *, what: str
    ) -> PreparedLayer | None:
        """Read one layer's plain tar and make its disk; None if there is nothing in it.

        Raises:
            CorruptData, InvalidArgument: It is no layer.
            ResourceExhausted: The disk is full.
            DeadlineExceeded: It stalled.
        """
        upload = await receive(
            chunks,
            self._staging / "layer",
            self._workers,
            reserve_bytes=self._limits.reserve_bytes,
            on_bytes=lambda count: self._tell(ImportStage.RECEIVING, "", count, None),
        )
        scanned = await self._run(
            lambda token: self._scan_rootfs(upload, what, token),
            upload.size_bytes,
            f"verifying {what}",
        )
        if scanned.index.is_empty:
            return None
        await self._make_disk(upload.path, scanned, upload.compression, what)
        return _prepared(scanned, upload.compression, upload.path)

    def _scan_rootfs(self, upload: ReceivedFile, what: str, token: CancelToken) -> ScannedLayer:
        with upload.path.open("rb") as file:
            source = FileRange(file, 0, upload.size_bytes)
            scanned = scan_layer(
                source,
                upload.compression,
                what=what,
                limits=self._limits,
                token=token,
                on_bytes=self._reporter(ImportStage.VERIFYING, "", upload.size_bytes),
                blob_digest=upload.digest,
                needs_end_mark=True,
            )
        return scanned

    async def _make_disk(
        self, blob: Path, scanned: ScannedLayer, compression: Compression, what: str
    ) -> None:
        self._pin(scanned.diff_id)
        report = self._reporter(
            ImportStage.CONVERTING, scanned.diff_id.short, scanned.unpacked_bytes
        )

        def convert(target: Path, token: CancelToken) -> None:
            with blob.open("rb") as file:
                convert_layer(
                    file, scanned, compression, target, what=what, token=token, on_bytes=report
                )

        await self._disks.ensure(
            scanned.diff_id,
            convert,
            staging=self._staging,
            timeout_s=step_timeout_s(scanned.unpacked_bytes),
        )

    async def _run(self, work: Callable[[CancelToken], T], size_bytes: int, what: str) -> T:
        return await self._workers.run(work, what=what, timeout_s=step_timeout_s(size_bytes))

    def _tell(self, stage: ImportStage, subject: str, done: int, total: int | None) -> None:
        self._report(ImportProgress(stage, subject, done, total))

    def _reporter(
        self, stage: ImportStage, subject: str, total_bytes: int
    ) -> Callable[[int], None]:
        """A callback for worker threads, which reports every PROGRESS_STEP_BYTES."""
        reported = -PROGRESS_STEP_BYTES

        def report(count: int) -> None:
            nonlocal reported
            if count - reported >= PROGRESS_STEP_BYTES or count == total_bytes > reported:
                reported = count
                self._loop.call_soon_threadsafe(self._tell, stage, subject, count, total_bytes)

        return report


def step_timeout_s(size_bytes: int) -> float:
    """Deadline of one step over that many bytes."""
    return STEP_TIMEOUT_BASE_S + size_bytes / STEP_RATE_BYTES_PER_S


def _prepared(scanned: ScannedLayer, compression: Compression, blob: Path) -> PreparedLayer:
    descriptor = Descriptor(layer_media_type(compression), scanned.blob_digest, scanned.blob_bytes)
    return PreparedLayer(scanned.diff_id, descriptor, scanned.unpacked_bytes, blob)


def _manifest_for(config: bytes, layers: list[PreparedLayer]) -> bytes:
    descriptor = Descriptor(MEDIA_CONFIG, digest_of(config), len(config))
    return make_manifest(descriptor, [layer.descriptor for layer in layers])


def _lying(what: str, kind: str, stated: object, found: Digest) -> CorruptData:
    return CorruptData(
        f"{what} is not what its {kind} says: stated {stated}, found {found}",
        advice="The archive was damaged or changed; save the image again.",
    )
