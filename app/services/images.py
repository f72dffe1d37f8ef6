"""What can be done with images."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from app.domain.event import EventType
from app.domain.image import Image, ImageConfig, ImageRemoval, ImageUser, ImportProgress
from app.domain.reference import Reference
from app.oci.store import ImageStore, SavedImage, StoredDocument
from app.services.events import EventService
from app.services.feed import ChangeFeed, Changes
from app.services.registry import ContainerRegistry
from app.storage.ballast import Ballast


class ImageService:
    """Use cases over the image store; every change is an event."""

    def __init__(
        self,
        store: ImageStore,
        registry: ContainerRegistry,
        events: EventService,
        feed: ChangeFeed,
        ballast: Ballast,
    ) -> None:
        self._store = store
        self._registry = registry
        self._events = events
        self._feed = feed
        self._ballast = ballast

    async def list(self) -> Sequence[Image]:
        """Newest first."""
        return self._store.list_images()

    async def get(self, reference: str) -> Image:
        """By reference, id or unique prefix of an id.

        Raises:
            NotFound: No such image.
        """
        return self._store.get(reference)

    def find(self, reference: str) -> Image:
        """The same for those who ask often.

        Raises:
            NotFound: No such image.
        """
        return self._store.get(reference)

    async def import_stream(
        self,
        chunks: AsyncIterator[bytes],
        *,
        reference: str | None,
        initiator: str,
        progress: Callable[[ImportProgress], None] | None = None,
        action: str = "import",
    ) -> Sequence[Image]:
        """Take in a `docker save` archive, an OCI archive or a root filesystem tar, streamed.

        Raises:
            CorruptData: It is none of these, or not what it claims to be.
            InvalidArgument: The reference is malformed.
            ResourceExhausted: The disk is full. Nothing is left after any failure.
        """
        images = await self._store.import_stream(chunks, reference=reference, progress=progress)
        for image in images:
            await self._record(action, image.id, image.display_name, initiator)
        return images

    async def import_rootfs(
        self,
        chunks: AsyncIterator[bytes],
        *,
        reference: str | None,
        config: ImageConfig,
        comment: str,
        initiator: str,
    ) -> Image:
        """Make an image of a root filesystem's tar, streamed, whatever it looks like.

        Raises:
            CorruptData, InvalidArgument, ResourceExhausted: As `import_stream`.
        """
        images = await self._store.import_stream(
            chunks, reference=reference, config=config, comment=comment, as_rootfs=True
        )
        await self._record("import", images[0].id, images[0].display_name, initiator)
        return images[0]

    async def document(self, image: Image) -> StoredDocument:
        """Its configuration as it was written, with the sizes of its layers.

        Raises:
            NotFound: The image is gone.
            CorruptData: Its file is damaged.
        """
        return await self._store.document(image)

    def chosen_by(self, names: Sequence[str]) -> Sequence[SavedImage]:
        """What `docker save` takes for names: a repository alone means all of its tags.

        Raises:
            NotFound: A name means no image.
        """
        chosen: dict[str, SavedImage] = {}
        for name in names:
            for image, reference in self._meant_by(name):
                before = chosen.get(image.id, SavedImage(image, ()))
                references = dict.fromkeys((*before.references, *filter(None, (reference,))))
                chosen[image.id] = SavedImage(image, tuple(references))
        return tuple(chosen.values())

    def _meant_by(self, name: str) -> Sequence[tuple[Image, Reference | None]]:
        is_repository = "@" not in name and ":" not in name.rpartition("/")[2]
        tags: Sequence[tuple[Image, Reference | None]] = [
            (image, reference)
            for image in self._store.list_images()
            for reference in image.tags
            if is_repository and name in {reference.familiar_name, reference.name}
        ]
        if tags:
            return tags
        image = self._store.get(name)
        tagged = (each for each in image.tags if name in {each.familiar, str(each)})
        return [(image, next(tagged, None))]

    def saving(
        self, wanted: Sequence[SavedImage]
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """An archive of images as `docker save` writes it, piece by piece.

        Raises:
            NotFound: One is gone.
        """
        return self._store.saving(wanted)

    async def tag(self, reference: str, new_reference: str, *, initiator: str) -> Image:
        """Give an image one more name.

        Raises:
            NotFound: No such image.
            InvalidArgument: The new name is malformed.
        """
        image = await self._store.tag(reference, new_reference)
        await self._record("tag", image.id, new_reference, initiator)
        return image

    async def remove(self, reference: str, *, force: bool = False, initiator: str) -> ImageRemoval:
        """Untag, and delete what nothing refers to any more (Docker's rules).

        Raises:
            NotFound: No such image.
            Conflict: A container uses it, or it has several names.
        """
        image = self._store.get(reference)
        users = [
            ImageUser(container.id, container.image_id, container.is_live)
            for container in await self._registry.list()
        ]
        removal = await self._ballast.try_twice(
            lambda: self._store.remove(reference, force=force, users=users)
        )
        for name in removal.untagged:
            await self._record("untag", image.id, name, initiator)
        for deleted in removal.deleted:
            await self._record("delete", deleted, image.display_name, initiator)
        return removal

    async def _record(self, action: str, image_id: str, name: str, initiator: str) -> None:
        await self._events.note(EventType.IMAGE, action, image_id, name, initiator=initiator)
        self._feed.publish(Changes(images=True))
