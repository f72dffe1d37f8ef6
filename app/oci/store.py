"""The image store: what services and the command line use."""

import asyncio
import contextlib
import platform
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from app.core.errors import CorruptData, InvalidArgument
from app.domain.image import (
    Image,
    ImageConfig,
    ImageNotFound,
    ImageRemoval,
    ImageUser,
    ImportProgress,
)
from app.domain.reference import Digest, Reference
from app.oci.catalog import Catalog
from app.oci.compression import SNIFF_BYTES, detect_compression
from app.oci.config import Descriptor, parse_object
from app.oci.conversion import convert_layer, scan_layer
from app.oci.importer import Importer, PreparedImage, RootfsOptions, step_timeout_s
from app.oci.intake import Intake, renamed
from app.oci.layer_disks import LayerDisks
from app.oci.layer_fetch import LayerFetches
from app.oci.layout import Layout, StoredImage
from app.oci.limits import ImportLimits
from app.oci.saving import save_archive
from app.oci.streams import CancelToken, FileRange
from app.oci.work import Workers, disk_error, settle

T = TypeVar("T")

DOWNLOADS = 3  # layers that come from registries at the same time

_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def host_architecture() -> str:
    """This machine in Go's spelling, as images name platforms."""
    return _GO_ARCHITECTURES.get(platform.machine(), platform.machine())


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """An image's configuration as JSON.

    Attributes:
        layer_sizes_bytes: Uncompressed, lowest first.
    """

    json: dict[str, Any]
    layer_sizes_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SavedImage:
    """An image to save, and the names to save it by."""

    image: Image
    references: tuple[Reference, ...]


class ImageStore:
    """Images in one directory, an OCI image layout.

    One process at a time may use a directory (the engine holds the data directory's lock). Between
    `open()` and `close()`, every method may be called concurrently, in one event loop.
    """

    def __init__(
        self, root: Path, *, limits: ImportLimits | None = None, downloads: int = DOWNLOADS
    ) -> None:
        self._layout = Layout(root)
        self.limits = limits or ImportLimits()
        self._workers = Workers()
        self._disks = LayerDisks(self._layout, self._workers)
        self.fetches = LayerFetches(self._layout, self._disks, self.limits, parallel=downloads)
        self._catalog = Catalog(self._layout)
        self._leases: Counter[str] = Counter()
        self._changes = asyncio.Lock()

    async def open(self) -> None:
        """Create or read the directory; remove what crashed imports and removals left.

        Raises:
            CorruptData: index.json is unreadable; nothing was deleted.
            Unavailable, ResourceExhausted: The directory can't be used.
        """
        try:
            await asyncio.to_thread(self._layout.prepare)
            await asyncio.to_thread(self._catalog.load)
            await asyncio.to_thread(self._catalog.sweep, ())
        except OSError as error:
            raise disk_error(error, "opening the image store") from error

    async def close(self) -> None:
        """Wait for the threads. Cancel running imports and pulls first. Idempotent."""
        await self.fetches.close()
        await self._workers.close()

    def list_images(self) -> list[Image]:
        """All images, newest first; those without a date last."""
        oldest = datetime.min.replace(tzinfo=UTC)
        return sorted(
            self._catalog.images(),
            key=lambda image: (image.created or oldest, image.id),
            reverse=True,
        )

    def get(self, name: str) -> Image:
        """Find an image by reference, id (`sha256:...` or hex) or unique id prefix.

        Raises:
            ImageNotFound: There is none, or a prefix fits several.
        """
        return self._catalog.find(name)[0].image

    async def import_stream(
        self,
        chunks: AsyncIterator[bytes],
        *,
        reference: str | None = None,
        progress: Callable[[ImportProgress], None] | None = None,
        config: ImageConfig | None = None,
        created: datetime | None = None,
        comment: str = "",
        as_rootfs: bool = False,
    ) -> list[Image]:
        """Import an archive of any size; memory use doesn't depend on it.

        Recognised by content: `docker save` and OCI archives, or else a tar of a root filesystem
        (as `docker import`); each plain or compressed by gzip, zstd, xz or bzip2. A reference that
        another image had moves to the imported one, as in Docker. All or nothing: after an error
        or cancellation the store is as before.

        Args:
            chunks: The bytes; each must come within 120 s.
            reference: Names the image in place of the names in the archive.
            progress: Called in the event loop; must not block.
            config: For a root filesystem; by default none.
            created: For a root filesystem; by default now.
            comment: For a root filesystem's history.
            as_rootfs: It is a root filesystem, whatever it looks like.

        Returns:
            The images of the archive, those that were there before included, each with the names
            that it was given now.

        Raises:
            InvalidArgument: Bad `reference`, or given for several images; unsafe or oversized
                content.
            CorruptData: Damaged, truncated or lying. Unsupported: No image for this machine.
            ResourceExhausted: The disk is (nearly) full.
            DeadlineExceeded: The upload stalled.
        """
        name = Reference.parse(reference) if reference is not None else None
        if name is not None and name.digest is not None:
            raise InvalidArgument("an import can't be given a digest", field="reference")
        options = RootfsOptions(
            config or ImageConfig(),
            created or datetime.now(UTC),
            host_architecture(),
            comment=comment,
            is_forced=as_rootfs,
        )
        return await self._import(chunks, name, options, progress or _ignore)

    async def _import(
        self,
        chunks: AsyncIterator[bytes],
        name: Reference | None,
        options: RootfsOptions,
        report: Callable[[ImportProgress], None],
    ) -> list[Image]:
        async with self.intake() as intake:
            importer = self.importer(intake, report)
            prepared = renamed(await importer.prepare(chunks, options), name)
            published = await intake.publish(prepared)
        given = zip(published, prepared, strict=True)
        return [replace(image, references=item.references) for image, item in given]

    def importer(self, intake: Intake, report: Callable[[ImportProgress], None]) -> Importer:
        """What makes layers of uploads, for one intake."""
        return Importer(
            self._layout,
            self._workers,
            self._disks,
            staging=intake.staging,
            limits=self.limits,
            known=intake.known,
            report=report,
            pin=intake.pin,
        )

    @contextlib.asynccontextmanager
    async def intake(self) -> AsyncIterator[Intake]:
        """Bring images in: after an error or cancellation the store is as before."""

        async def publish(prepared: list[PreparedImage]) -> list[Image]:
            return await self._change(lambda: self._catalog.publish(prepared, self.limits))

        async with self._layout.staging() as staging:
            with contextlib.ExitStack() as pins:
                try:
                    yield Intake(
                        self._layout,
                        staging,
                        known=self._catalog.known_layers(),
                        pin=lambda digest: pins.enter_context(self._disks.pinned([digest])),
                        publish=publish,
                    )
                except BaseException:
                    pins.close()
                    await self._change(lambda: self._catalog.sweep(self._disks.pins))
                    raise

    async def tag(self, name: str, reference: str, *, is_pushed: bool = False) -> Image:
        """Give an image one more name, taking it from the image that had it.

        Args:
            name: Reference, id or unique prefix.
            reference: With a tag; or with a digest, which only a registry gives.
            is_pushed: A registry has given it.

        Raises:
            ImageNotFound: No image `name`.
            InvalidArgument: `reference` is no name with a tag.
        """
        new = Reference.parse(reference)
        if new.digest is not None and not is_pushed:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        return await self._change(lambda: self._catalog.tag(name, new))

    async def untag(self, reference: str) -> Image:
        """Take a name away; the image stays, perhaps untagged.

        Raises:
            ImageNotFound: No image has that name.
        """
        return await self._change(lambda: self._catalog.untag(reference))

    async def remove(
        self, name: str, *, force: bool = False, users: Collection[ImageUser] = ()
    ) -> ImageRemoval:
        """Remove a name, and the image with its last name, by Docker's rules.

        An image that a container uses, or that is leased, is never deleted: by force it loses its
        names and stays as an untagged image until it is removed again.

        Args:
            name: Reference, id or unique prefix.
            force: Untag although a container uses it, or it has names in several repositories.
            users: All containers.

        Raises:
            ImageNotFound: No such image.
            Conflict: It is in use; Docker's text.
        """
        leased = set(self._leases)
        return await self._change(
            lambda: self._catalog.remove(
                name, force=force, users=users, leased=leased, kept=self._disks.pins
            )
        )

    @contextlib.asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[Image]:
        """Keep an image's data while the block runs, e.g. until a container is recorded.

        Raises:
            ImageNotFound: No such image.
        """
        image = self.get(name)
        self._leases[image.id] += 1
        try:
            yield image
        finally:
            self._leases[image.id] -= 1
            if not self._leases[image.id]:
                del self._leases[image.id]

    async def layer_disks(self, image: Image) -> tuple[Path, ...]:
        """The image's disks for the guest's overlay, lowest first.

        Made at import; one that is missing is made again from its blob. One path for each of
        `image.mounted_diff_ids`.

        Raises:
            ImageNotFound: The image is gone.
            CorruptData: A blob is lost or damaged.
            ResourceExhausted: The disk is full.
        """
        stored = self.stored(image)
        blobs = dict(zip(stored.image.diff_ids, stored.layers, strict=True))
        return tuple(
            [
                await self._ensure_disk(Digest.parse(diff_id), blobs[diff_id])
                for diff_id in stored.image.mounted_diff_ids
            ]
        )

    async def _ensure_disk(self, diff_id: Digest, descriptor: Descriptor) -> Path:
        path = self._layout.disk_path(diff_id)
        if await asyncio.to_thread(path.exists):
            return path
        with self._disks.pinned([diff_id]):
            async with self._layout.staging() as staging:
                return await self._disks.ensure(
                    diff_id,
                    lambda target, token: self._remake(diff_id, descriptor, target, token),
                    staging=staging,
                    timeout_s=step_timeout_s(descriptor.size_bytes),
                )

    def _remake(
        self, diff_id: Digest, descriptor: Descriptor, target: Path, token: CancelToken
    ) -> None:
        what = f"layer {diff_id.short}"
        try:
            file = self._layout.blob_path(descriptor.digest).open("rb")
        except FileNotFoundError as error:
            raise CorruptData(
                f"{what}: its blob {descriptor.digest} is missing from the store",
                advice="Import the image again.",
            ) from error
        with file:
            compression = detect_compression(file.read(SNIFF_BYTES))
            source = FileRange(file, 0, descriptor.size_bytes)
            scanned = scan_layer(source, compression, what=what, limits=self.limits, token=token)
            if (scanned.diff_id, scanned.blob_digest) != (diff_id, descriptor.digest):
                raise CorruptData(
                    f"{what}: its blob {descriptor.digest} is damaged",
                    advice="Check the disk; remove the image and import it again.",
                )
            convert_layer(file, scanned, compression, target, what=what, token=token)

    async def document(self, image: Image) -> StoredDocument:
        """The image's configuration as it was written, with the sizes of its layers.

        Raises:
            ImageNotFound: The image is gone.
            CorruptData: Its file is damaged.
        """
        stored = self.stored(image)
        data = await asyncio.to_thread(self._layout.read_blob, stored.config)
        document = parse_object(data, what=f"image {image.short_id}")
        return StoredDocument(document, stored.layer_sizes_bytes)

    @contextlib.asynccontextmanager
    async def saving(self, wanted: Sequence[SavedImage]) -> AsyncIterator[AsyncIterator[bytes]]:
        """An archive of images, as `docker save` writes it; their data is kept meanwhile.

        Raises:
            ImageNotFound: One is gone.
        """
        async with contextlib.AsyncExitStack() as stack:
            for item in wanted:
                await stack.enter_async_context(self.lease(item.image.id))
            stored = [(self.stored(item.image), item.references) for item in wanted]
            yield save_archive(self._layout, stored)

    def stored(self, image: Image) -> StoredImage:
        """The image with where its parts lie.

        Raises:
            ImageNotFound: It is gone.
        """
        stored = self._catalog.stored(image.id)
        if stored is None:
            raise ImageNotFound(image.display_name if image.references else image.short_id)
        return stored

    def blob_path(self, digest: Digest) -> Path:
        """Where a blob lies; lease its image while it is read."""
        return self._layout.blob_path(digest)

    async def used_bytes(self) -> int:
        """Disk space of all images."""
        return await asyncio.to_thread(self._layout.used_bytes)

    async def _change(self, change: Callable[[], T]) -> T:
        """Run a change of the store in a thread, one at a time; it is never left half-way."""
        async with self._changes:
            future = asyncio.ensure_future(asyncio.to_thread(change))
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                await settle(future)
                raise
            except OSError as error:
                raise disk_error(error, "changing the image store") from error


def _ignore(_: ImportProgress) -> None: ...
