"""What is used on disk, and the removal of what nobody needs any more."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from app.core.errors import Conflict, NotFound
from app.domain.container import Container, ContainerState
from app.domain.event import EventType
from app.domain.image import Image, ImageRemoval
from app.services.containers import ContainerService
from app.services.events import EventService
from app.services.images import ImageService

_PRUNED_STATES = frozenset({ContainerState.CREATED, ContainerState.EXITED, ContainerState.DEAD})


@dataclass(frozen=True)
class ContainerSizes:
    """Disk space of a container.

    Attributes:
        scratch_bytes: What its scratch disk takes on the host: what it has written, the disk's own
            bookkeeping included.
        image_bytes: Its image's layers.
    """

    scratch_bytes: int
    image_bytes: int


@dataclass(frozen=True)
class PrunedContainers:
    """Which containers went, and the space they took."""

    ids: tuple[str, ...]
    freed_bytes: int


class UpkeepService:
    """Sizes and pruning over containers and images."""

    def __init__(
        self, containers: ContainerService, images: ImageService, events: EventService
    ) -> None:
        self._containers = containers
        self._images = images
        self._events = events

    async def sizes(self, container: Container) -> ContainerSizes:
        """What the container takes."""
        image_bytes = 0
        with suppress(NotFound):
            image_bytes = self._images.find(container.image_id).size_bytes
        return ContainerSizes(await self._containers.scratch_bytes(container), image_bytes)

    async def prune_containers(
        self, wanted: Callable[[Container], bool], *, initiator: str
    ) -> PrunedContainers:
        """Remove those that do not run and that `wanted` picks."""
        ids: list[str] = []
        freed_bytes = 0
        for container in await self._containers.list():
            if container.state not in _PRUNED_STATES or not wanted(container):
                continue
            size_bytes = await self._containers.scratch_bytes(container)
            with suppress(NotFound, Conflict):  # removed or started meanwhile
                await self._containers.remove(container.id, initiator=initiator)
                ids.append(container.id)
                freed_bytes += size_bytes
        await self._tell(EventType.CONTAINER, freed_bytes, initiator)
        return PrunedContainers(tuple(ids), freed_bytes)

    async def prune_images(
        self, wanted: Callable[[Image], bool], *, dangling_only: bool, initiator: str
    ) -> Sequence[ImageRemoval]:
        """Remove those that no container uses and that `wanted` picks.

        With `dangling_only` only images without a name.
        """
        used = {container.image_id for container in await self._containers.list()}
        removals: list[ImageRemoval] = []
        for image in await self._images.list():
            if image.id in used or not wanted(image) or (dangling_only and image.references):
                continue
            with suppress(NotFound, Conflict):
                removals.append(
                    await self._images.remove(image.id, force=True, initiator=initiator)
                )
        freed_bytes = sum(removal.freed_bytes for removal in removals)
        await self._tell(EventType.IMAGE, freed_bytes, initiator)
        return removals

    async def _tell(self, kind: EventType, freed_bytes: int, initiator: str) -> None:
        attributes = {"reclaimed": str(freed_bytes)}
        await self._events.note(kind, "prune", "", "", initiator=initiator, attributes=attributes)
