"""Writes blobs and manifests into a repository.

Source: OCI distribution-spec, "Push"; Docker's `/v2/<name>/blobs/uploads/`.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from app.core.units import MIB
from app.domain.reference import Digest
from app.domain.registry import RegistryDenied, RegistryFailed
from app.oci.config import Descriptor, digest_of
from app.oci.registry.client import MANIFEST_MAX_BYTES, Repository
from app.oci.registry.refusals import Refused
from app.oci.registry.transport import Ask, Pause

WHOLE_MAX_BYTES = 16 * MIB  # larger blobs go in pieces, which can be taken up again
PIECE_BYTES = 64 * MIB
READ_BYTES = 256 * 1024
_RANGE_RE = re.compile(r"(?:bytes=)?0-(\d{1,18})")

OnBytes = Callable[[int], None]


async def has_blob(repository: Repository, descriptor: Descriptor) -> bool:
    """Whether the registry has it, of that size."""
    ask = Ask(
        "HEAD",
        f"/v2/{repository.name}/blobs/{descriptor.digest}",
        repository.scopes,
        expected=frozenset({200, 404}),
    )
    async with repository.transport.ask(ask) as response:
        length = response.headers.get("content-length", str(descriptor.size_bytes))
        return response.status_code == 200 and length == str(descriptor.size_bytes)


async def mount_blob(repository: Repository, descriptor: Descriptor, source: str) -> bool:
    """Take it from another repository of the same registry; False if that can't be."""
    ask = Ask(
        "POST",
        f"/v2/{repository.name}/blobs/uploads/?mount={descriptor.digest}&from={source}",
        (*repository.scopes, f"repository:{source}:pull"),
        expected=frozenset({201, 202, 401, 403, 404}),
    )
    try:
        response, _ = await repository.transport.fetch(ask, MANIFEST_MAX_BYTES)
        location = response.headers.get("location", "")
        if response.status_code == 202 and location:
            place = repository.transport.absolute(str(response.url), location)
            await _give_up(repository, str(place))
    except (Refused, RegistryDenied):  # whoever may not read the source uploads
        return False
    return response.status_code == 201


async def _give_up(repository: Repository, location: str) -> None:
    """End an upload that was begun in place of a mount."""
    ask = Ask("DELETE", location, repository.scopes, expected=frozenset(range(200, 500)))
    async with repository.transport.ask(ask):
        pass


async def put_blob(
    repository: Repository, descriptor: Descriptor, path: Path, on_bytes: OnBytes
) -> None:
    """Upload a file; an upload that breaks is taken up where the registry says it is.

    Raises:
        RegistryFailed: It broke too often, or was refused.
    """
    pause = Pause(repository.transport.options)
    upload: _Upload | None = None
    while True:
        before = upload.done_bytes if upload is not None else 0
        try:
            if upload is None:
                upload = await _Upload.begin(repository, descriptor, path, on_bytes)
            await upload.finish()
        except RegistryFailed as error:
            if isinstance(error, Refused) and error.status not in _ANEW:
                raise
            upload = await upload.found_again() if upload is not None else None
            if upload is not None and upload.done_bytes > before:
                pause.reset()
            if not await pause.wait():
                raise
        else:
            return


# An upload may be lost on the registry's side, or stand elsewhere than thought.
_ANEW = frozenset({404, 408, 416, 429, 500, 502, 503, 504})


class _Upload:
    """One upload under way."""

    def __init__(
        self,
        repository: Repository,
        descriptor: Descriptor,
        path: Path,
        on_bytes: OnBytes,
        location: str,
    ) -> None:
        self._repository = repository
        self._descriptor = descriptor
        self._path = path
        self._on_bytes = on_bytes
        self._location = location
        self.done_bytes = 0

    @classmethod
    async def begin(
        cls, repository: Repository, descriptor: Descriptor, path: Path, on_bytes: OnBytes
    ) -> "_Upload":
        return cls(repository, descriptor, path, on_bytes, await _begin(repository))

    async def finish(self) -> None:
        """Send what is missing, and close with the digest."""
        size = self._descriptor.size_bytes
        if size > WHOLE_MAX_BYTES:
            while self.done_bytes < size:
                await self._send("PATCH", min(PIECE_BYTES, size - self.done_bytes))
        await self._send("PUT", size - self.done_bytes)

    async def found_again(self) -> "_Upload | None":
        """Ask how far it is; None if the registry has lost it."""
        ask = Ask("GET", self._location, self._repository.scopes, expected=frozenset({204}))
        try:
            response, _ = await self._repository.transport.fetch(ask, MANIFEST_MAX_BYTES)
        except RegistryFailed:
            return None
        reached = _RANGE_RE.fullmatch(response.headers.get("range", ""))
        done = int(reached[1]) + 1 if reached else 0
        if reached and reached[1] == "0":  # one byte, or none: the form can't tell
            return None
        if done > self._descriptor.size_bytes:
            return None
        self._moved(str(response.url), response.headers.get("location", ""))
        self.done_bytes = done
        return self

    async def _send(self, method: str, count: int) -> None:
        first = self.done_bytes
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(count)}
        target = self._location
        if method == "PATCH":
            headers["Content-Range"] = f"{first}-{first + count - 1}"
        else:
            target += ("&" if "?" in target else "?") + f"digest={self._descriptor.digest}"
        ask = Ask(
            method,
            target,
            self._repository.scopes,
            headers,
            body=(lambda: self._bytes(first, count)) if count else b"",
            expected=frozenset({202} if method == "PATCH" else {201, 204}),
            is_retried=False,
        )
        response, _ = await self._repository.transport.fetch(ask, MANIFEST_MAX_BYTES)
        self._moved(str(response.url), response.headers.get("location", ""))
        self.done_bytes = first + count

    def _moved(self, asked: str, location: str) -> None:
        """Each answer says where the next request goes."""
        if location:
            self._location = str(self._repository.transport.absolute(asked, location))

    async def _bytes(self, first: int, count: int) -> AsyncIterator[bytes]:
        file = await asyncio.to_thread(self._path.open, "rb")
        try:
            await asyncio.to_thread(file.seek, first)
            sent = 0
            while sent < count:
                data = await asyncio.to_thread(file.read, min(READ_BYTES, count - sent))
                if not data:
                    raise RegistryFailed(f"{self._path} is cut short", is_definite=True)
                yield data
                sent += len(data)
                self._on_bytes(first + sent)
        finally:
            await asyncio.to_thread(file.close)


async def _begin(repository: Repository) -> str:
    """Open an upload; gives the place that takes the bytes."""
    ask = Ask(
        "POST",
        f"/v2/{repository.name}/blobs/uploads/",
        repository.scopes,
        body=b"",
        expected=frozenset({202}),
    )
    response, _ = await repository.transport.fetch(ask, MANIFEST_MAX_BYTES)
    location = response.headers.get("location", "")
    if not location:
        raise RegistryFailed("the registry names no place to upload to", is_definite=True)
    return str(repository.transport.absolute(str(response.url), location))


async def put_bytes(repository: Repository, descriptor: Descriptor, data: bytes) -> None:
    """Upload a small blob at hand.

    Raises:
        RegistryFailed: It was refused.
    """
    location = await _begin(repository)
    location += ("&" if "?" in location else "?") + f"digest={descriptor.digest}"
    ask = Ask(
        "PUT",
        location,
        repository.scopes,
        {"Content-Type": "application/octet-stream"},
        body=data,
        expected=frozenset({201, 204}),
    )
    await repository.transport.fetch(ask, MANIFEST_MAX_BYTES)


async def put_manifest(
    repository: Repository, tag: str, descriptor: Descriptor, data: bytes
) -> Digest:
    """Name an image whose blobs are all there; gives the manifest's digest.

    Raises:
        RegistryFailed: It was refused, or the registry took it for something else.
    """
    ask = Ask(
        "PUT",
        f"/v2/{repository.name}/manifests/{tag}",
        repository.scopes,
        {"Content-Type": descriptor.media_type},
        body=data,
        expected=frozenset({200, 201, 202}),
    )
    response, _ = await repository.transport.fetch(ask, MANIFEST_MAX_BYTES)
    digest = digest_of(data)
    stated = response.headers.get("docker-content-digest", str(digest))
    if stated != str(digest):
        raise RegistryFailed(
            f"the registry took the manifest {digest} for {stated}", is_definite=True
        )
    return digest
