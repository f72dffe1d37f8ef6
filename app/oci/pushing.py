"""Pushes images of the store to registries: blobs as they are kept, so that digests stay."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from app.core.errors import SlipwayError
from app.domain.image import Image
from app.domain.reference import Digest, Reference
from app.domain.registry import (
    Credentials,
    LayerProgress,
    LayerStage,
    Transfer,
    TransferEnded,
)
from app.oci.config import Descriptor
from app.oci.layout import StoredImage
from app.oci.registry.client import Connection, Repository
from app.oci.registry.options import RegistryOptions
from app.oci.registry.refusals import push_refusal
from app.oci.registry.upload import has_blob, mount_blob, put_blob, put_bytes, put_manifest
from app.oci.store import ImageStore

PROGRESS_PAUSE_S = 0.1
MOUNTS_MAX = 3  # repositories that are asked for one layer

Report = Callable[[Transfer], None]


class Pusher:
    """Pushes from one store."""

    def __init__(self, store: ImageStore, options: RegistryOptions) -> None:
        self._store = store
        self._options = options

    async def push(
        self, reference: Reference, *, credentials: Credentials, report: Report
    ) -> TransferEnded:
        """Push one tagged image; what the registry has is not sent again.

        Raises:
            ImageNotFound: No image has that name.
            RegistryFailed, RegistryDenied: The registry can't be reached, or refuses.
        """
        async with self._store.lease(str(reference)) as image:
            stored = self._store.stored(image)
            _prepare(stored, report)
            try:
                async with Connection(
                    reference, credentials, self._options, is_push=True
                ) as connection:
                    repository = await connection.reached()
                    digest = await self._send(repository, reference, stored, report)
            except SlipwayError as error:
                raise push_refusal(error) from error
            await self._store.tag(
                image.id, str(replace(reference, tag=None, digest=str(digest))), is_pushed=True
            )
        return TransferEnded(reference, digest, stored.manifest.size_bytes, is_news=False)

    async def _send(
        self, repository: Repository, reference: Reference, stored: StoredImage, report: Report
    ) -> Digest:
        slots = asyncio.Semaphore(self._options.uploads)
        layers = dict(zip(stored.layers, stored.image.diff_ids, strict=True))
        try:
            async with asyncio.TaskGroup() as group:
                for descriptor, diff_id in layers.items():
                    short = Digest.parse(diff_id).short
                    sources = self._sources(reference, descriptor)
                    group.create_task(
                        self._send_layer(repository, descriptor, short, sources, slots, report)
                    )
        except* SlipwayError as errors:
            raise _first(errors) from errors
        if not await has_blob(repository, stored.config):
            path = self._store.blob_path(stored.config.digest)
            await put_bytes(repository, stored.config, await asyncio.to_thread(path.read_bytes))
        path = self._store.blob_path(stored.manifest.digest)
        manifest = await asyncio.to_thread(path.read_bytes)
        return await put_manifest(repository, reference.tag or "", stored.manifest, manifest)

    async def _send_layer(
        self,
        repository: Repository,
        descriptor: Descriptor,
        short: str,
        sources: list[str],
        slots: asyncio.Semaphore,
        report: Report,
    ) -> None:
        if slots.locked():
            report(LayerProgress(short, LayerStage.WAITING))
        async with slots:
            if await has_blob(repository, descriptor):
                report(LayerProgress(short, LayerStage.IN_REGISTRY))
                return
            for source in sources:
                if await mount_blob(repository, descriptor, source):
                    report(LayerProgress(short, LayerStage.MOUNTED, source=source))
                    return
            path = self._store.blob_path(descriptor.digest)
            await put_blob(repository, descriptor, path, _reporter(descriptor, short, report))
            report(LayerProgress(short, LayerStage.PUSHED))

    def _sources(self, reference: Reference, descriptor: Descriptor) -> list[str]:
        """Repositories of the same registry that are known to have had the blob."""
        names = {
            name.path
            for image in self._store.list_images()
            for name in image.references
            if name.digest is not None
            and (name.domain, name.path != reference.path) == (reference.domain, True)
            and self._has(image, descriptor)
        }
        return sorted(names)[:MOUNTS_MAX]

    def _has(self, image: Image, descriptor: Descriptor) -> bool:
        return descriptor in self._store.stored(image).layers


def _prepare(stored: StoredImage, report: Report) -> None:
    for diff_id in dict.fromkeys(stored.image.diff_ids):
        report(LayerProgress(Digest.parse(diff_id).short, LayerStage.PREPARING))


def _first(errors: BaseExceptionGroup[SlipwayError]) -> SlipwayError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, SlipwayError):
        raise TypeError from error
    return error


def _reporter(descriptor: Descriptor, short: str, report: Report) -> Callable[[int], None]:
    loop = asyncio.get_running_loop()
    told_at = 0.0

    def on_bytes(count: int) -> None:
        nonlocal told_at
        if loop.time() >= told_at + PROGRESS_PAUSE_S or count == descriptor.size_bytes:
            told_at = loop.time()
            total = descriptor.size_bytes
            report(LayerProgress(short, LayerStage.PUSHING, count, total))

    return on_bytes
