"""Images of containers as they are: `docker commit`."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from app.core.errors import SlipwayError
from app.domain.container import Container, ContainerState
from app.domain.container_config import ContainerConfig, merge_command
from app.domain.event import EventType
from app.domain.image import Image, ImageConfig
from app.domain.image_changes import apply_changes
from app.domain.reference import Reference
from app.oci.committing import CommitOptions, commit_image
from app.oci.store import ImageStore
from app.services.events import EventService
from app.services.feed import ChangeFeed, Changes
from app.services.files import FileService
from app.services.registry import ContainerRegistry, Happening
from app.services.supervisor import Supervisor

_ON_BUILD = "ONBUILD"


@dataclass(frozen=True)
class CommitRequest:
    """What is asked for.

    Attributes:
        reference: The image's name, or empty.
        changes: Lines of a Dockerfile.
        config: Settings in place of the container's own, as far as they say something.
        pause: Freeze the container meanwhile.
    """

    reference: str = ""
    comment: str = ""
    author: str = ""
    changes: Sequence[str] = field(default_factory=tuple)
    config: ImageConfig = field(default_factory=ImageConfig)
    pause: bool = True


class CommitService:
    """Makes images of containers, running and stopped ones."""

    def __init__(
        self,
        registry: ContainerRegistry,
        images: ImageStore,
        files: FileService,
        supervisor: Supervisor,
        events: EventService,
        feed: ChangeFeed,
    ) -> None:
        self._registry = registry
        self._images = images
        self._files = files
        self._supervisor = supervisor
        self._events = events
        self._feed = feed

    async def commit(self, reference: str, request: CommitRequest, *, initiator: str) -> Image:
        """Make an image of what a container has changed.

        Raises:
            NotFound: No such container.
            InvalidArgument: The name or a change is malformed.
            ResourceExhausted: The disk is full.
        """
        name = Reference.parse(request.reference) if request.reference else None
        container = await self._registry.find(reference)
        base = self._images.get(container.image_id)
        on_build, changes = _split(request.changes)
        own = fill(request.config, settings_of(container.config, base.config))
        options = CommitOptions(
            config=apply_changes(own, changes),
            parent_id=base.id,
            author=request.author,
            comment=request.comment,
            created_by=" ".join(own.cmd),
            on_build=on_build,
            reference=name,
        )
        async with (
            self._held(container, is_wanted=request.pause),
            self._files.own_layer(container) as layer,
        ):
            image = await commit_image(self._images, base, layer, options)
        await self._tell(container, image, request.comment, name, initiator)
        return image

    @asynccontextmanager
    async def _held(self, container: Container, *, is_wanted: bool) -> AsyncIterator[None]:
        """Its processes stand still meanwhile, if it runs; what is in memory is not on disk yet."""
        if not is_wanted or container.state is not ContainerState.RUNNING:
            yield
            return
        agent = self._supervisor.run_of(container).agent
        await agent.freeze(container.id)
        try:
            yield
        finally:
            current = await self._registry.find(container.id)
            if current.state is ContainerState.RUNNING:  # nobody has paused it meanwhile
                await _thaw(self._supervisor, container)

    async def _tell(
        self,
        container: Container,
        image: Image,
        comment: str,
        name: Reference | None,
        initiator: str,
    ) -> None:
        attributes = {"comment": comment, "imageID": image.id}
        if name is not None:
            attributes["imageRef"] = name.familiar
        happening = Happening("commit", initiator, attributes)
        await self._events.record(happening.event(container))
        if name is not None:
            await self._events.note(
                EventType.IMAGE, "tag", image.id, name.familiar, initiator=initiator
            )
        self._feed.publish(Changes(images=True))


async def _thaw(supervisor: Supervisor, container: Container) -> None:
    try:
        await supervisor.run_of(container).agent.thaw(container.id)
    except SlipwayError:
        return  # it has ended meanwhile


def _split(changes: Iterable[str]) -> tuple[list[str], list[str]]:
    """ONBUILD is no setting of a container; all the others are."""
    on_build, others = [], []
    for change in changes:
        for line in change.splitlines():
            word, _, rest = line.strip().partition(" ")
            if word.upper() == _ON_BUILD and rest.strip():
                on_build.append(rest.strip())
            else:
                others.append(line)
    return on_build, others


def settings_of(config: ContainerConfig, image: ImageConfig) -> ImageConfig:
    """A container's settings as those of an image."""
    entrypoint, command = merge_command(config, image)
    return replace(
        image,
        entrypoint=entrypoint,
        cmd=command,
        env=merge_env(config.env, image.env),
        user=config.user or image.user,
        working_dir=config.working_dir or image.working_dir,
        exposed_ports=tuple(sorted({*image.exposed_ports, *config.exposed_ports})),
        labels={**image.labels, **config.labels},
        stop_signal=config.stop_signal or image.stop_signal,
        healthcheck=config.healthcheck or image.healthcheck,
    )


def merge_env(first: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """The variables of `others`, with the values that `first` gives, then its own."""
    values = {entry.partition("=")[0]: entry for entry in (*others, *first) if "=" in entry}
    return tuple(values.values())


def fill(config: ImageConfig, rest: ImageConfig) -> ImageConfig:
    """What `config` says, and `rest` where it says nothing (moby, daemon/commit.go)."""
    command = config.cmd or (() if config.entrypoint else rest.cmd)
    return replace(
        rest,
        entrypoint=config.entrypoint or rest.entrypoint,
        cmd=command,
        env=merge_env(config.env, rest.env),
        user=config.user or rest.user,
        working_dir=config.working_dir or rest.working_dir,
        exposed_ports=tuple(sorted({*rest.exposed_ports, *config.exposed_ports})),
        volumes=tuple(sorted({*rest.volumes, *config.volumes})),
        labels={**rest.labels, **config.labels},
        stop_signal=config.stop_signal or rest.stop_signal,
        healthcheck=config.healthcheck or rest.healthcheck,
    )
