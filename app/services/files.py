"""Files of containers: shown, copied both ways, compared with the image, written out whole."""

import asyncio
import contextlib
import errno
import posixpath
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from app.core.errors import (
    Conflict,
    CorruptData,
    GuestFailed,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)
from app.core.units import MIB
from app.domain.container import Container, ContainerState
from app.guest.protocol import ChangeKind, Op, TreeView
from app.guest.tree_records import NAME_MAX_BYTES, TreeData, TreeEntry
from app.guest.trees import TreeCall, TreeRequest, tree_call
from app.oci.store import ImageStore
from app.services.container_owner import owner_of
from app.services.events import EventService
from app.services.file_tar import TreeTar, upload_records
from app.services.guest_spec import layer_serials
from app.services.layer_view import Change, changes_of, layer_name
from app.services.life import Life
from app.services.registry import ContainerRegistry, Happening
from app.services.run import Run
from app.services.service_vm import Reach, ServiceVms
from app.services.supervisor import Supervisor

CHANGES_MAX = 500_000
CHANGES_MAX_BYTES = 64 * MIB  # of their names
END_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class PathStat:
    """What a path names; `link` is where a symbolic link leads in the end."""

    name: str
    size_bytes: int
    mode: int
    mtime_ns: int
    link: str

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True)
class _Path:
    """A path as Docker reads it: from the root, its end a sign of what is meant."""

    asked: str
    clean: bytes
    follow: bool
    base: bytes  # what the copied thing is called in the archive


def _path(asked: str) -> _Path:
    if "\0" in asked:
        raise InvalidArgument("a path can't hold a NUL character")
    raw = asked.encode("utf-8", "surrogateescape")
    clean = posixpath.normpath(b"/" + raw.lstrip(b"/"))
    if len(clean) > NAME_MAX_BYTES - 1:
        raise InvalidArgument("file name too long")
    ends_in_dot = raw.endswith(b"/.") or raw == b"."
    base = b"." if ends_in_dot else posixpath.basename(clean) or b"/"
    return _Path(asked, clean, ends_in_dot or raw.endswith(b"/") or clean == b"/", base)


class FileService:
    """Asks the guest: a running container's own VM, or a service VM with its disks.

    Every method raises NotFound for an unknown container.
    """

    def __init__(
        self,
        registry: ContainerRegistry,
        images: ImageStore,
        supervisor: Supervisor,
        service_vms: ServiceVms,
        events: EventService,
    ) -> None:
        self._registry = registry
        self._images = images
        self._supervisor = supervisor
        self._service_vms = service_vms
        self._events = events

    async def run(self) -> None:
        """Own the service VMs until cancelled."""
        await self._service_vms.run()

    @asynccontextmanager
    async def _reach(self, container: Container) -> AsyncIterator[Reach]:
        while True:
            await self._service_vms.left(container.id)
            # From here to `use` nothing is awaited: a start that comes now finds the service VM.
            if (life := self._supervisor.life(container.id)) is None:
                async with self._service_vms.use(container) as reach:
                    yield reach
                return
            if (run := await self._run_of(container, life)) is not None:
                count = len(self._images.get(container.image_id).mounted_diff_ids)
                yield Reach(run.agent, run.new_stream_id, layer_serials(count))
                return
            container = await self._registry.find(container.id)
            if container.state is ContainerState.REMOVING:
                raise Conflict(f"container {container.name} is being removed")

    async def _run_of(self, container: Container, life: Life) -> Run | None:
        """A living container's run; None once it lives no longer, and its disk is free."""
        await life.settled.wait()
        if life.run is not None and life.run.is_started and not life.run.init_exit.done():
            return life.run
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await life.gone.wait()  # its VM saves the disk until then
        except TimeoutError as error:
            raise Conflict(
                f"Container {container.name} is restarting, wait until the container is running"
            ) from error
        return None

    @asynccontextmanager
    async def _call(
        self, container: Container, request: TreeRequest, asked: str
    ) -> AsyncIterator[TreeCall]:
        """A call whose failures are told in Docker's words."""
        try:
            async with self._reach(container) as reach:
                wanted = replace(
                    request,
                    output_stream=reach.new_stream_id(),
                    input_stream=reach.new_stream_id() if request.op is Op.WRITE_TREE else 0,
                    layers=reach.layers if request.op is Op.LIST_CHANGES else (),
                )
                async with tree_call(reach.agent, wanted) as call:
                    yield call
        except GuestFailed as error:
            if error.errno == errno.ENOENT:
                raise NotFound(
                    f"Could not find the file {asked} in container {container.name}"
                ) from error
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise ResourceExhausted(error.message) from error
            if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
                raise PermissionDenied(error.message) from error
            if error.errno in {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}:
                raise InvalidArgument(error.message) from error
            raise

    # --- one path ----------------------------------------------------------------------------

    async def stat(self, reference: str, path: str) -> PathStat:
        """What a path names.

        Raises:
            NotFound: Nothing.
            InvalidArgument: The path says that it is a directory, and it is none.
        """
        container = await self._registry.find(reference)
        return await self._stat(container, _path(path))

    async def _stat(self, container: Container, path: _Path) -> PathStat:
        request = TreeRequest(Op.STAT_PATH, container.id, 0, path.clean, follow=path.follow)
        async with self._call(container, request, path.asked) as call:
            entry = await call.next()
            if not isinstance(entry, TreeEntry) or await call.next() is not None:
                raise CorruptData("The guest did not tell what was asked for")
        if path.follow and not entry.is_directory:
            raise InvalidArgument("not a directory")
        return PathStat(
            name=path.base.decode("utf-8", "surrogateescape"),
            size_bytes=entry.size_bytes,
            mode=entry.mode,
            mtime_ns=entry.mtime_ns,
            link=entry.link.decode("utf-8", "surrogateescape"),
        )

    @asynccontextmanager
    async def reading(
        self, reference: str, path: str
    ) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
        """What a path names, and a tar of it, named as Docker names it.

        Raises:
            NotFound: Nothing is there.
        """
        container = await self._registry.find(reference)
        wanted = _path(path)
        seen = await self._stat(container, wanted)
        request = TreeRequest(Op.READ_TREE, container.id, 0, wanted.clean, follow=wanted.follow)
        prefix = b"" if wanted.base == b"/" else wanted.base

        def rename(entry: TreeEntry) -> bytes:
            if entry.name == b"." or not seen.is_directory:
                return prefix or b"/"
            return prefix + b"/" + entry.name

        async with self._call(container, request, path) as call:
            self._events.tell(Happening("archive-path").event(container))
            yield seen, _tar(call, TreeTar(rename))

    async def write(
        self,
        reference: str,
        path: str,
        chunks: AsyncIterator[bytes],
        *,
        keep_kinds: bool = False,
        take_user: bool = False,
    ) -> None:
        """Unpack an archive, packed or not, in a directory.

        Args:
            reference: The container.
            path: The directory; links are followed.
            chunks: The archive.
            keep_kinds: Replace no directory by another kind of file, nor the other way round.
            take_user: All belongs to the container's user, if it has one.

        Raises:
            NotFound: The directory is not there.
            InvalidArgument: It is no directory, or the archive leads out of it.
            PermissionDenied: The container's root is read-only.
            CorruptData: It is no archive.
        """
        container = await self._registry.find(reference)
        if container.config.read_only_root:
            raise PermissionDenied("container rootfs is marked read-only")
        wanted = _path(path)
        owner: tuple[int, int] | None = None
        if take_user and container.config.user:
            owner = await owner_of(container.config.user, lambda name: self._text(container, name))
        request = TreeRequest(Op.WRITE_TREE, container.id, 0, wanted.clean, keep_kinds=keep_kinds)
        async with self._call(container, request, path) as call:
            async with contextlib.aclosing(upload_records(chunks, what="the archive")) as batches:
                async for batch in batches:
                    for record in batch:
                        if owner is not None and isinstance(record, TreeEntry):
                            record = replace(record, uid=owner[0], gid=owner[1])
                        await call.write(record)
            await call.finish()
        self._events.tell(Happening("extract-to-dir").event(container))

    async def _text(self, container: Container, path: str) -> str:
        """A small file's content; empty if it is not there."""
        text = bytearray()
        request = TreeRequest(Op.READ_TREE, container.id, 0, path.encode())
        with contextlib.suppress(NotFound):
            async with self._call(container, request, path) as call:
                while (record := await call.next()) is not None and len(text) < 1 << 20:
                    text += record.data if isinstance(record, TreeData) else b""
        return text.decode("utf-8", "replace")

    # --- all of it ---------------------------------------------------------------------------

    async def changes(self, reference: str) -> Sequence[Change]:
        """What differs from the image, as Docker's diff tells it."""
        container = await self._registry.find(reference)
        request = TreeRequest(Op.LIST_CHANGES, container.id, 0, view=TreeView.UPPER)
        entries: list[TreeEntry] = []
        names_bytes = 0
        async with self._call(container, request, "/") as call:
            while (record := await call.next()) is not None:
                if isinstance(record, TreeData) or record.change is None:
                    raise CorruptData("The guest told no changes")
                names_bytes += len(record.name)
                if len(entries) >= CHANGES_MAX or names_bytes > CHANGES_MAX_BYTES:
                    raise ResourceExhausted("More files were changed than can be listed")
                entries.append(replace(record, xattrs=(), link=b""))
        return changes_of(entries)

    @asynccontextmanager
    async def exporting(self, reference: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """A tar of its root file system, without what is mounted in it."""
        container = await self._registry.find(reference)
        request = TreeRequest(Op.READ_TREE, container.id, 0, b"/", TreeView.ROOT, follow=True)

        def rename(entry: TreeEntry) -> bytes | None:
            return None if entry.name == b"." else entry.name

        async with self._call(container, request, "/") as call:
            self._events.tell(Happening("export").event(container))
            yield _tar(call, TreeTar(rename))

    @asynccontextmanager
    async def own_layer(self, container: Container) -> AsyncIterator[AsyncIterator[bytes]]:
        """A tar of what it has changed, as a layer of an image."""
        same = {
            change.path.encode("utf-8", "surrogateescape").lstrip(b"/")
            for change in await self.changes(container.id)
            if change.kind is not ChangeKind.DELETED
        }
        request = TreeRequest(Op.READ_TREE, container.id, 0, b"/", TreeView.UPPER, follow=True)

        def rename(entry: TreeEntry) -> bytes | None:
            return layer_name(entry, same)

        async with self._call(container, request, "/") as call:
            yield _tar(call, TreeTar(rename, is_layer=True))


async def _tar(call: TreeCall, tar: TreeTar) -> AsyncIterator[bytes]:
    while (record := await call.next()) is not None:
        for piece in tar.feed(record):
            yield piece
    for piece in tar.finish():
        yield piece
