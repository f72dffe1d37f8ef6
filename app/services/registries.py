"""What can be done with image registries."""

from collections.abc import Sequence

from app.core.errors import InvalidArgument, NotFound
from app.domain.event import EventType
from app.domain.reference import DEFAULT_DOMAIN, Reference, is_domain, shown
from app.domain.registry import Credentials, Platform, TransferStarted
from app.oci.config import Descriptor
from app.oci.pulling import Puller
from app.oci.pushing import Pusher
from app.oci.registry.client import login
from app.oci.registry.options import RegistryOptions
from app.oci.store import ImageStore
from app.services.events import EventService
from app.services.feed import ChangeFeed, Changes
from app.services.transfers import Report, RunningTransfer

DOCKER_HUB_KEY = "https://index.docker.io/v1/"


class RegistryService:
    """Pulls, pushes and logins; every pull and push is an event."""

    def __init__(
        self, store: ImageStore, options: RegistryOptions, events: EventService, feed: ChangeFeed
    ) -> None:
        self._store = store
        self.options = options
        self._puller = Puller(store, options)
        self._pusher = Pusher(store, options)
        self._events = events
        self._feed = feed

    async def pull(
        self,
        reference: str,
        *,
        credentials: Credentials,
        initiator: str,
        platform: str = "",
        all_tags: bool = False,
    ) -> RunningTransfer:
        """Begin to pull; returns once the registry has answered.

        Raises:
            InvalidArgument: The reference or platform is malformed.
            RegistryLacks: There is no such image.
            RegistryFailed, RegistryDenied: The registry can't be reached, or refuses.
        """
        wanted = Reference.parse(reference)

        async def work(report: Report) -> None:
            names: Sequence[Reference] = [wanted]
            if all_tags:
                names = await self._puller.tags(wanted, credentials=credentials)
            for name in names:
                await self._pull(name, credentials, initiator, platform, report)

        transfer = RunningTransfer(work)
        await transfer.begin()
        return transfer

    async def _pull(
        self,
        name: Reference,
        credentials: Credentials,
        initiator: str,
        platform: str,
        report: Report,
    ) -> None:
        pulled = await self._puller.pull(
            name, credentials=credentials, platform=platform, report=report
        )
        await self._note("pull", pulled.image.id, name, initiator)
        report(pulled.ended)

    async def push(
        self, reference: str, *, credentials: Credentials, initiator: str, all_tags: bool = False
    ) -> RunningTransfer:
        """Begin to push one tag, or all that a repository has here.

        Raises:
            InvalidArgument: The reference is malformed, or has a digest.
        """
        wanted = Reference.parse(reference)
        if wanted.digest is not None:
            raise InvalidArgument("cannot push a digest reference")

        async def work(report: Report) -> None:
            report(TransferStarted(wanted))
            for name in self._pushed(wanted, all_tags=all_tags):
                image = self._store.get(str(name))
                ended = await self._pusher.push(name, credentials=credentials, report=report)
                await self._note("push", image.id, name, initiator)
                report(ended)

        transfer = RunningTransfer(work)
        await transfer.begin()
        return transfer

    def _pushed(self, wanted: Reference, *, all_tags: bool) -> list[Reference]:
        names = [
            name
            for image in self._store.list_images()
            for name in image.tags
            if name.name == wanted.name and (all_tags or name == wanted)
        ]
        if not names:
            name = wanted.familiar_name
            what = f"tag: {name}" if all_tags else f"tag: {wanted.familiar}"
            raise NotFound(f"An image does not exist locally with the {what}")
        return sorted(names, key=str)

    async def inspect(
        self, reference: str, *, credentials: Credentials
    ) -> tuple[Descriptor, list[Platform]]:
        """What a reference names in its registry, and for which platforms.

        Raises:
            InvalidArgument: It is malformed.
            RegistryLacks, RegistryFailed, RegistryDenied: The registry's answer.
        """
        return await self._puller.inspect(Reference.parse(reference), credentials=credentials)

    async def login(self, server: str, credentials: Credentials) -> str:
        """Try credentials; gives an identity token, if there is one to keep in their place.

        Raises:
            LoginFailed: They aren't taken.
            RegistryFailed: The registry can't be reached.
        """
        return await login(registry_of(server), credentials, self.options)

    async def _note(self, action: str, image_id: str, name: Reference, initiator: str) -> None:
        await self._events.note(
            EventType.IMAGE, action, image_id, name.familiar, initiator=initiator
        )
        self._feed.publish(Changes(images=True))


def registry_of(server: str) -> str:
    """The registry's name, of what people write to log in.

    Raises:
        InvalidArgument: It names no host.
    """
    if server.strip() in {"", DOCKER_HUB_KEY, "index.docker.io", "registry-1.docker.io"}:
        return DEFAULT_DOMAIN
    host = server.strip().removeprefix("https://").removeprefix("http://").partition("/")[0]
    if not is_domain(host):
        raise InvalidArgument(f"invalid registry {shown(server)}: it names no host")
    return host
