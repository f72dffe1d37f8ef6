"""Logs, events, samples and images in memory, for the dashboard's tests."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

from app.core.errors import CorruptData
from app.core.units import MIB
from app.domain.event import Event
from app.domain.image import Image, ImageConfig, ImageNotFound, ImageRemoval
from app.domain.log import LogLine, LogStream
from app.domain.reference import Reference
from app.logs.follow import LogFollower, LogHub
from app.services.feed import ChangeFeed, Changes
from app.services.stats import ContainerSample


def now_ns() -> int:
    return time.time_ns()


class FakeLogStore:
    """Lines in memory; the history that LogHub asks for."""

    def __init__(self) -> None:
        self._lines: dict[str, list[LogLine]] = {}

    def last_seq(self, container_id: str) -> int:
        return len(self._lines.get(container_id, ()))

    async def read(self, container_id: str, *, from_seq: int, limit: int) -> list[LogLine]:
        return self._lines.get(container_id, [])[from_seq - 1 : from_seq - 1 + limit]

    def add(self, container_id: str, lines: Sequence[LogLine]) -> None:
        self._lines.setdefault(container_id, []).extend(lines)


class FakeLogs:
    """As LogService."""

    def __init__(self) -> None:
        self.store = FakeLogStore()
        self.hub = LogHub(self.store)
        self.consoles: dict[str, bytes] = {}

    def write(
        self, container_id: str, *texts: str, stream: LogStream = LogStream.STDOUT, at_ns: int = 0
    ) -> None:
        """Store lines and tell the viewers."""
        first = self.store.last_seq(container_id) + 1
        lines = [
            LogLine(first + index, (at_ns or now_ns()) + index * 1000, stream, text.encode())
            for index, text in enumerate(texts)
        ]
        self.store.add(container_id, lines)
        self.hub.publish(container_id, lines)

    async def tail(self, container_id: str, *, limit: int) -> Sequence[LogLine]:
        first = max(self.store.last_seq(container_id) - limit, 0) + 1
        return await self.store.read(container_id, from_seq=first, limit=limit)

    async def read(self, container_id: str, *, from_seq: int, limit: int) -> Sequence[LogLine]:
        return await self.store.read(container_id, from_seq=from_seq, limit=limit)

    async def last_seq(self, container_id: str) -> int:
        return self.store.last_seq(container_id)

    def follow(
        self, container_id: str, *, after_seq: int, until_end: bool = False
    ) -> AbstractAsyncContextManager[LogFollower]:
        return self.hub.follow(container_id, after_seq=after_seq, until_end=until_end)

    async def console(self, container_id: str) -> bytes:
        return self.consoles.get(container_id, b"")


class FakeEvents:
    """As EventService."""

    def __init__(self, feed: ChangeFeed) -> None:
        self._feed = feed
        self.all: list[Event] = []
        self._grown = asyncio.Event()

    def record(self, event: Event) -> None:
        self.all.append(replace(event, id=len(self.all) + 1))
        self._grown.set()
        self._feed.publish(Changes(events=True))

    async def list(
        self, *, limit: int = 100, before_id: int | None = None, actor_id: str | None = None
    ) -> Sequence[Event]:
        found = [
            event
            for event in reversed(self.all)
            if (before_id is None or event.id < before_id)
            and (actor_id is None or event.actor_id == actor_id)
        ]
        return found[:limit]

    @asynccontextmanager
    async def follow(self, *, after_id: int) -> AsyncIterator[SimpleNamespace]:
        last_id = after_id

        async def following() -> Event:
            nonlocal last_id
            while len(self.all) <= last_id:
                self._grown.clear()
                await self._grown.wait()
            event = self.all[last_id]
            last_id = event.id
            return event

        yield SimpleNamespace(next=following)


class FakeStats:
    """As StatsService; samples are set by the test."""

    def __init__(self) -> None:
        self.samples: dict[str, list[ContainerSample]] = {}
        self.watchers = 0

    def latest(self, container_id: str) -> ContainerSample | None:
        history = self.samples.get(container_id)
        return history[-1] if history else None

    def history(self, container_id: str) -> tuple[ContainerSample, ...]:
        return tuple(self.samples.get(container_id, ()))

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        self.watchers += 1
        try:
            yield
        finally:
            self.watchers -= 1


def sample(cpu_percent: float = 12.0, app_mib: int = 40, limit_bytes: int = 0) -> ContainerSample:
    """A plausible sample."""
    return ContainerSample(
        cpu_user_us=0,
        cpu_system_us=0,
        time_ns=now_ns(),
        cpu_us=0,
        cpu_percent=cpu_percent,
        memory_bytes=(app_mib + 12) * MIB,
        memory_limit_bytes=limit_bytes,
        memory_anon_bytes=app_mib * MIB,
        memory_file_bytes=12 * MIB,
        pids=3,
        io_read_bytes=0,
        io_write_bytes=0,
        guest_total_bytes=512 * MIB,
        guest_available_bytes=400 * MIB,
        guest_kernel_bytes=31 * MIB,
        host_resident_bytes=(app_mib + 12 + 31 + 58) * MIB,
        host_template_bytes=4 * MIB,
    )


class FakeImages:
    """As ImageService."""

    def __init__(self, feed: ChangeFeed) -> None:
        self._feed = feed
        self.all: list[Image] = []
        self.imported_bytes = 0
        self.import_fault: Exception | None = None

    def add(self, name: str, size_bytes: int, *cmd: str) -> Image:
        image = Image(
            id="sha256:" + secrets.token_hex(32),
            references=(Reference.parse(name),),
            config=ImageConfig(cmd=cmd),
            created=datetime(2026, 11, 20, tzinfo=UTC),
            architecture="amd64",
            os="linux",
            diff_ids=("sha256:" + "a" * 64,),
            size_bytes=size_bytes,
            manifest_digest="sha256:" + "b" * 64,
        )
        self.all.insert(0, image)
        self._feed.publish(Changes(images=True))
        return image

    async def list(self) -> "list[Image]":
        return list(self.all)

    async def get(self, reference: str) -> Image:
        return self.find(reference)

    def find(self, reference: str) -> Image:
        for image in self.all:
            names = {one.familiar for one in image.references}
            if reference in names | {image.id, image.short_id} or f"{reference}:latest" in names:
                return image
        raise ImageNotFound(reference, advice="Import it first.")

    async def import_stream(
        self,
        chunks: AsyncIterator[bytes],
        *,
        reference: str | None,
        initiator: str,
        progress: Callable[[object], None] | None = None,
    ) -> Sequence[Image]:
        head = b""
        async for chunk in chunks:
            self.imported_bytes += len(chunk)
            head = head or chunk[:512]
        if self.import_fault is not None:
            raise self.import_fault
        if head[257:262] != b"ustar":
            raise CorruptData("The upload is not a tar archive", advice="Choose a .tar file.")
        return [self.add(reference or "imported:latest", self.imported_bytes, "sh")]

    async def remove(self, reference: str, *, force: bool = False, initiator: str) -> ImageRemoval:
        image = self.find(reference)
        self.all.remove(image)
        self._feed.publish(Changes(images=True))
        names = tuple(one.familiar for one in image.references)
        return ImageRemoval(names, (image.id,), image.size_bytes)
