"""What can be done with images."""

from collections.abc import AsyncIterator, Callable, Sequence

from app.domain.event import EventType
from app.domain.image import Image, ImageRemoval, ImageUser, ImportProgress
from app.oci.store import ImageStore
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
    ) -> Sequence[Image]:
        """Take in a `docker save` archive, an OCI archive or a root filesystem tar, streamed.

        Raises:
            CorruptData: It is none of these, or not what it claims to be.
            InvalidArgument: The reference is malformed.
            ResourceExhausted: The disk is full. Nothing is left after any failure.
        """
        images = await self._store.import_stream(chunks, reference=reference, progress=progress)
        for image in images:
            await self._record("import", image.id, image.display_name, initiator)
        return images

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
