"""One repository of a registry: read and write its manifests and blobs."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Self

import httpx2

from app.core.errors import CorruptData, DeadlineExceeded, SlipwayError
from app.domain.reference import Digest, Reference
from app.domain.registry import Credentials, LoginFailed, RegistryDenied, RegistryFailed
from app.oci.config import Descriptor, digest_of, parse_object
from app.oci.registry.manifests import ACCEPTED, Document, read_document
from app.oci.registry.options import Endpoint, RegistryOptions
from app.oci.registry.refusals import Refused
from app.oci.registry.transport import Ask, Pause, Transport, unreachable

MANIFEST_MAX_BYTES = 4 * 1024 * 1024
TAG_PAGES_MAX = 1000


class Repository:
    """A repository at one endpoint, for one operation; `Connection` makes one."""

    def __init__(self, transport: Transport, name: str, *, is_push: bool = False) -> None:
        self.transport = transport
        self.name = name
        self.scopes: tuple[str, ...] = (
            f"repository:{name}:pull,push" if is_push else f"repository:{name}:pull",
        )

    async def manifest(self, reference: Reference, digest: Digest | None = None) -> Document:
        """Fetch what the reference names, or the one of that digest; verified.

        Raises:
            CorruptData: It isn't what its digest says.
            RegistryFailed: No sensible answer; `Refused` for the registry's own words.
        """
        wanted = digest or (Digest.parse(reference.digest) if reference.digest else None)
        ask = Ask(
            "GET",
            f"/v2/{self.name}/manifests/{wanted or reference.tag}",
            self.scopes,
            {"Accept": ACCEPTED},
        )
        response, data = await self.transport.fetch(ask, MANIFEST_MAX_BYTES)
        found = digest_of(data)
        stated = wanted or _stated(response)
        if stated is not None and stated != found:
            raise CorruptData(
                f"manifest verification failed for digest {stated}: the registry sent {found}"
            )
        return read_document(data, found, response.headers.get("content-type", ""), reference)

    async def tags(self) -> list[str]:
        """All tags of the repository.

        Raises:
            RegistryFailed: No sensible answer, or one without end.
        """
        target, found = f"/v2/{self.name}/tags/list", list[str]()
        for _ in range(TAG_PAGES_MAX):
            response, data = await self.transport.fetch(
                Ask("GET", target, self.scopes), MANIFEST_MAX_BYTES
            )
            tags = parse_object(data, what="the list of tags").get("tags") or []
            found += [tag for tag in tags if isinstance(tag, str)]
            following = response.links.get("next", {}).get("url")
            if not following:
                return found
            target = str(response.url.join(following))
        raise RegistryFailed(f"{self.name} has a list of tags without end", is_definite=True)

    async def small_blob(self, descriptor: Descriptor, limit_bytes: int) -> bytes:
        """A configuration; verified.

        Raises:
            CorruptData: It isn't what its digest says.
        """
        if descriptor.size_bytes > limit_bytes:
            raise CorruptData(f"blob {descriptor.digest} is larger than {limit_bytes:,} bytes")
        data = bytearray()
        async for piece in self.blob(descriptor):
            data += piece
        if digest_of(bytes(data)) != descriptor.digest:
            raise CorruptData(
                f"image config verification failed for digest {descriptor.digest}",
                advice="The registry sent something else; try again later.",
            )
        return bytes(data)

    async def blob(self, descriptor: Descriptor, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """A blob's bytes, exactly as many as its manifest says; who reads them verifies them.

        A cut connection is taken up again where it broke.

        Raises:
            CorruptData: It has more bytes than the manifest says.
            RegistryFailed: It broke too often without a byte in between.
        """
        done = offset
        pause = Pause(self.transport.options)
        while True:
            before = done
            try:
                async for piece in self._rest(descriptor, done):
                    done += len(piece)
                    yield piece
                if done == descriptor.size_bytes:
                    return
                error: Exception = RegistryFailed(
                    f"blob {descriptor.digest} is cut short: {done:,} of "
                    f"{descriptor.size_bytes:,} bytes",
                    is_definite=True,
                )
            except httpx2.HTTPError as cut:
                error = unreachable("GET", self.transport.endpoint, cut)
            except RegistryFailed as failed:
                if isinstance(failed, Refused) or failed.is_definite:
                    raise
                error = failed
            if done > before:
                pause.reset()
            if not await pause.wait():
                raise error

    async def _rest(self, descriptor: Descriptor, offset: int) -> AsyncIterator[bytes]:
        """The blob from `offset` on, as far as the connection carries."""
        ask = Ask(
            "GET",
            f"/v2/{self.name}/blobs/{descriptor.digest}",
            self.scopes,
            {"Range": f"bytes={offset}-"} if offset else {},
            expected=frozenset({200, 206}),
        )
        async with self.transport.ask(ask) as response:
            skip = _to_skip(response, offset, descriptor)
            left = descriptor.size_bytes - offset
            async for piece in response.aiter_raw():
                if skip:
                    dropped = min(skip, len(piece))
                    skip -= dropped
                    piece = piece[dropped:]
                if len(piece) > left:
                    raise CorruptData(
                        f"blob {descriptor.digest} has more than the {descriptor.size_bytes:,} "
                        "bytes that its manifest says",
                        advice="The registry or something on the way changes it.",
                    )
                left -= len(piece)
                if piece:
                    yield piece


def _to_skip(response: httpx2.Response, offset: int, descriptor: Descriptor) -> int:
    """How much of an answer is there already; checks what it announces."""
    if response.status_code == 206:
        announced = response.headers.get("content-range", "")
        if not announced.startswith(f"bytes {offset}-"):
            raise RegistryFailed(
                f"blob {descriptor.digest}: asked for bytes from {offset} on, got {announced!r}",
                is_definite=True,
            )
        return 0
    length = response.headers.get("content-length", "")
    if length.isdecimal() and int(length) != descriptor.size_bytes:
        raise CorruptData(
            f"blob {descriptor.digest} has {int(length):,} bytes, not the "
            f"{descriptor.size_bytes:,} that its manifest says"
        )
    return offset


def _stated(response: httpx2.Response) -> Digest | None:
    text = response.headers.get("docker-content-digest", "")
    try:
        return Digest.parse(text)
    except CorruptData:
        return None


class Connection:
    """Finds the endpoint of a registry that answers, and keeps it for one operation.

    Args:
        reference: Names the registry and the repository.
        is_push: Whether blobs and manifests are to be written.
    """

    def __init__(
        self,
        reference: Reference,
        credentials: Credentials,
        options: RegistryOptions,
        *,
        is_push: bool = False,
    ) -> None:
        self._reference = reference
        self._credentials = credentials
        self._options = options
        self._is_push = is_push
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def manifest(self) -> tuple[Repository, Document]:
        """The reference's document, from the first endpoint that has it.

        Raises:
            SlipwayError: None has it; of their refusals, one that a registry itself has given.
        """
        failures: list[SlipwayError] = []
        for endpoint in self._endpoints():
            repository = await self._repository(endpoint)
            try:
                return repository, await repository.manifest(self._reference)
            except (RegistryFailed, RegistryDenied, CorruptData) as error:
                failures.append(error)
                if not endpoint.is_mirror and not _is_no_answer(error):
                    break
        raise _telling(failures)

    async def reached(self) -> Repository:
        """The repository at the first endpoint that speaks the protocol.

        Raises:
            SlipwayError: None does.
        """
        failures: list[SlipwayError] = []
        for endpoint in self._endpoints():
            repository = await self._repository(endpoint)
            ask = Ask("GET", "/v2/", repository.scopes, expected=frozenset({200, 404}))
            try:
                await repository.transport.fetch(ask, MANIFEST_MAX_BYTES)
            except (RegistryFailed, RegistryDenied) as error:
                failures.append(error)
                if not _is_no_answer(error):
                    break
            else:
                return repository
        raise _telling(failures)

    def _endpoints(self) -> list[Endpoint]:
        return list(self._options.endpoints(self._reference.domain, is_push=self._is_push))

    async def _repository(self, endpoint: Endpoint) -> Repository:
        opened: Callable[..., AbstractAsyncContextManager[Transport]] = Transport.open
        transport = await self._stack.enter_async_context(
            opened(endpoint, self._credentials, self._options)
        )
        return Repository(transport, self._reference.path, is_push=self._is_push)


def _is_no_answer(error: SlipwayError) -> bool:
    return isinstance(error, RegistryFailed) and not error.is_definite


def _telling(failures: list[SlipwayError]) -> SlipwayError:
    """The last word of a registry, or else the last failure to reach one."""
    return next((each for each in reversed(failures) if not _is_no_answer(each)), failures[-1])


async def login(domain: str, credentials: Credentials, options: RegistryOptions) -> str:
    """Try credentials; gives an identity token if the token server has one.

    Raises:
        LoginFailed: They aren't taken.
        RegistryFailed: The registry can't be reached.
    """
    failures: list[SlipwayError] = []
    for endpoint in options.endpoints(domain, is_push=True):
        async with Transport.open(endpoint, credentials, options) as transport:
            try:
                await transport.fetch(Ask("GET", "/v2/", ()), MANIFEST_MAX_BYTES)
            except (RegistryDenied, Refused) as error:
                if isinstance(error, Refused) and error.status not in {401, 403}:
                    raise
                raise LoginFailed(
                    f"login attempt to {endpoint.base}/v2/ failed with status: 401 Unauthorized"
                ) from error
            except (RegistryFailed, DeadlineExceeded) as error:
                failures.append(error)
            else:
                return transport.authority.identity_token
    raise _telling(failures)
