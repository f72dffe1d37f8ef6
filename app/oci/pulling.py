"""Pulls images from registries into the store."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from app.core.errors import CorruptData, SlipwayError
from app.domain.image import Image, ImageNotFound
from app.domain.reference import Digest, Reference
from app.domain.registry import (
    Credentials,
    LayerProgress,
    LayerStage,
    Platform,
    RegistryLacks,
    Transfer,
    TransferEnded,
    TransferStarted,
)
from app.oci.config import (
    Descriptor,
    ImageDocument,
    Manifest,
    parse_image_document,
    parse_manifest,
)
from app.oci.importer import PreparedImage, PreparedLayer
from app.oci.intake import Intake
from app.oci.layer_fetch import Tell
from app.oci.registry.client import Connection, Repository
from app.oci.registry.manifests import Document, choose, platforms
from app.oci.registry.options import RegistryOptions
from app.oci.registry.refusals import pull_refusal
from app.oci.store import ImageStore, host_architecture

Report = Callable[[Transfer], None]


@dataclass(frozen=True)
class _Found:
    """What the registry has, before its layers come.

    Attributes:
        named: What the reference names there: a manifest or an index.
        chosen: The manifest for the platform.
    """

    named: Document
    chosen: Document
    manifest: Manifest
    config: bytes
    document: ImageDocument
    layers: tuple[tuple[Descriptor, Digest], ...]


@dataclass(frozen=True)
class Pulled:
    """A pull's result."""

    image: Image
    ended: TransferEnded


class Puller:
    """Pulls into one store."""

    def __init__(self, store: ImageStore, options: RegistryOptions) -> None:
        self._store = store
        self._options = options

    async def pull(
        self,
        reference: Reference,
        *,
        credentials: Credentials,
        report: Report,
        platform: str = "",
    ) -> Pulled:
        """Pull one image; all or nothing. Layers that the store has don't come again.

        Raises:
            RegistryLacks: There is no such image, or none for the platform.
            RegistryFailed, RegistryDenied: The registry can't be reached, or refuses.
            CorruptData: It sent something that isn't what its digest says.
            InvalidArgument, Unsupported: The image can't be used.
            ResourceExhausted: The disk is full.
        """
        reference = _asked(reference)
        wanted = Platform.parse(
            platform or f"linux/{host_architecture()}", default_architecture=host_architecture()
        )
        try:
            async with Connection(reference, credentials, self._options) as connection:
                repository, named = await connection.manifest()
                chosen = await _chosen(repository, named, reference, wanted)
                report(TransferStarted(reference))
                found = await self._look(repository, named, chosen, reference)
                if platform:
                    _check_platform(found.document, wanted, reference)
                return await self._take(repository, found, reference, report)
        except SlipwayError as error:
            raise pull_refusal(error, reference.familiar_name, reference.familiar) from error

    async def tags(self, reference: Reference, *, credentials: Credentials) -> list[Reference]:
        """Everything that a repository names.

        Raises:
            RegistryLacks, RegistryFailed, RegistryDenied: As `pull`.
        """
        try:
            async with Connection(reference, credentials, self._options) as connection:
                repository = await connection.reached()
                tags = await repository.tags()
        except SlipwayError as error:
            raise pull_refusal(error, reference.familiar_name, reference.familiar) from error
        return [replace(reference, tag=tag, digest=None) for tag in tags]

    async def inspect(
        self, reference: Reference, *, credentials: Credentials
    ) -> tuple[Descriptor, list[Platform]]:
        """What a reference names in its registry, and for which platforms.

        Raises:
            RegistryLacks, RegistryFailed, RegistryDenied: As `pull`.
        """
        reference = _asked(reference)
        try:
            async with Connection(reference, credentials, self._options) as connection:
                repository, named = await connection.manifest()
                if named.is_index:
                    return named.descriptor, [platform for platform, _ in platforms(named)]
                document = (await self._look(repository, named, named, reference)).document
                platform = Platform(document.os, document.architecture)
                return named.descriptor, [platform]
        except SlipwayError as error:
            raise pull_refusal(error, reference.familiar_name, reference.familiar) from error

    async def _look(
        self, repository: Repository, named: Document, chosen: Document, reference: Reference
    ) -> _Found:
        limits = self._store.limits
        what = f"the manifest of {reference.familiar}"
        manifest = parse_manifest(chosen.data, what=what, limits=limits)
        config = await repository.small_blob(manifest.config, limits.metadata_bytes)
        document = parse_image_document(config, what=f"image {manifest.config.digest.short}")
        if len(document.diff_ids) != len(manifest.layers):
            raise CorruptData(
                f"{what} has {len(manifest.layers)} layers, but its configuration lists "
                f"{len(document.diff_ids)} diff_ids"
            )
        layers = tuple(zip(manifest.layers, document.diff_ids, strict=True))
        return _Found(named, chosen, manifest, config, document, layers)

    async def _take(
        self, repository: Repository, found: _Found, reference: Reference, report: Report
    ) -> Pulled:
        before = self._named(reference)
        async with self._store.intake() as intake, AsyncExitStack() as fetching:
            layers = await self._layers(intake, fetching, repository, found, report)
            digest = found.named.descriptor.digest
            by_digest = replace(reference, tag=None, digest=str(digest))
            prepared = PreparedImage(
                tuple(dict.fromkeys((reference, by_digest))),
                found.document,
                found.config,
                found.chosen.data,
                layers,
            )
            image = (await intake.publish([prepared]))[0]
        is_news = before is None or before.id != image.id
        ended = TransferEnded(reference, digest, found.named.descriptor.size_bytes, is_news)
        return Pulled(image, ended)

    def _named(self, reference: Reference) -> Image | None:
        try:
            image = self._store.get(str(reference))
        except ImageNotFound:
            return None
        return image if reference in image.references else None

    async def _layers(
        self,
        intake: Intake,
        fetching: AsyncExitStack,
        repository: Repository,
        found: _Found,
        report: Report,
    ) -> tuple[PreparedLayer, ...]:
        done: dict[tuple[Descriptor, Digest], PreparedLayer] = {}
        waiting: dict[tuple[Descriptor, Digest], asyncio.Task[PreparedLayer]] = {}
        for key in dict.fromkeys(found.layers):
            descriptor, diff_id = key
            layer = await intake.reuse(diff_id, descriptor.digest)
            if layer is not None:
                report(LayerProgress(descriptor.digest.short, LayerStage.EXISTS))
                done[key] = layer
                continue
            intake.pin(diff_id)
            intake.pin(descriptor.digest)
            waiting[key] = await fetching.enter_async_context(
                self._store.fetches.wanted(
                    descriptor,
                    diff_id,
                    _opener(repository, descriptor),
                    _teller(report, descriptor),
                )
            )
        await _all_or_first_failure(list(waiting.values()))
        done |= {key: task.result() for key, task in waiting.items()}
        return tuple(done[key] for key in found.layers)


def _opener(
    repository: Repository, descriptor: Descriptor
) -> Callable[[int], AsyncGenerator[bytes, None]]:
    return lambda offset: repository.blob(descriptor, offset)


def _teller(report: Report, descriptor: Descriptor) -> Tell:
    def tell(stage: LayerStage, done: int, total: int) -> None:
        report(LayerProgress(descriptor.digest.short, stage, done, total))

    return tell


async def _all_or_first_failure(tasks: list[asyncio.Task[PreparedLayer]]) -> None:
    """Wait for tasks that belong to others: they are not cancelled here."""
    if not tasks:
        return
    finished, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in finished:
        task.result()


def _asked(reference: Reference) -> Reference:
    """A digest says all: a tag beside it is not asked for, as in Docker."""
    return replace(reference, tag=None) if reference.digest is not None else reference


async def _chosen(
    repository: Repository, named: Document, reference: Reference, wanted: Platform
) -> Document:
    if not named.is_index:
        return named
    chosen = await repository.manifest(reference, choose(named, wanted).digest)
    if chosen.is_index:
        raise CorruptData(f"the index of {reference.familiar} lists an index")
    return chosen


def _check_platform(document: ImageDocument, wanted: Platform, reference: Reference) -> None:
    if (document.os, document.architecture) != (wanted.os, wanted.architecture):
        raise RegistryLacks(
            f"image with reference {reference.familiar} was found but does not match the "
            f"specified platform: wanted {wanted}, actual: {document.os}/{document.architecture}"
        )
