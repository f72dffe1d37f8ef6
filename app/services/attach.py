"""Attaching to a container: its output from now on, or from its beginning, and its input."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.core.errors import Conflict
from app.domain.container import Container, ContainerState
from app.guest.streams import InputStream
from app.logs.store import LogStore
from app.services.attachments import AttachHub, Attachment, Junction, OutputPiece
from app.services.registry import ContainerRegistry

PAGE_LINES = 500
# In these a run has output, or had: a tap that is gone tells that all of it was handed on.
_WITH_OUTPUT = frozenset({ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.STOPPING})


class AttachService:
    """Lossless access to containers; who is attached holds the container back."""

    def __init__(self, registry: ContainerRegistry, hub: AttachHub, log_store: LogStore) -> None:
        self._registry = registry
        self._hub = hub
        self._log_store = log_store

    @asynccontextmanager
    async def attach(
        self, container: Container, *, history: bool, live: bool
    ) -> AsyncIterator[AsyncIterator[OutputPiece]]:
        """Its output, without a gap or repeat between history and what comes.

        Entering is registering: what is written from then on comes. For a container that does not
        run that is the output of its next run. Leaving does nothing to the container.
        """
        with self._hub.attach(container.id) as attachment:
            junction = self._junction(container.id) if history else None
            if not live or await self._is_complete(container.id):
                attachment.end()
            yield self._output(container.id, junction, attachment)

    def _junction(self, container_id: str) -> Junction:
        tap = self._hub.taps.get(container_id)
        if tap is not None:
            return tap.junction()
        return Junction.at(self._log_store.last_seq(container_id))

    async def _is_complete(self, container_id: str) -> bool:
        container = await self._registry.find(container_id)
        return container.state in _WITH_OUTPUT and container_id not in self._hub.taps

    async def _output(
        self, container_id: str, junction: Junction | None, attachment: Attachment
    ) -> AsyncIterator[OutputPiece]:
        if junction is not None:
            async for piece in self._history(container_id, junction):
                yield piece
        async for piece in attachment:
            yield piece

    async def _history(self, container_id: str, junction: Junction) -> AsyncIterator[OutputPiece]:
        last_seq = await junction.last_seq
        next_seq = 1
        while next_seq <= last_seq:
            lines = await self._log_store.read(container_id, from_seq=next_seq, limit=PAGE_LINES)
            if not lines:
                break
            for line in lines:
                if line.seq <= last_seq:
                    yield OutputPiece(line.stream, line.data + (b"" if line.partial else b"\n"))
            next_seq = lines[-1].seq + 1
        for stream, pending in junction.pending.items():
            yield OutputPiece(stream, pending.data)

    async def input_of(self, container: Container) -> InputStream:
        """Its standard input; waits, without a deadline, until it runs.

        Raises:
            Conflict: It was made without one.
        """
        if not container.config.stdin_open:
            raise Conflict(f"Container {container.name} has no standard input")
        return await self._hub.input_of(container.id)

    async def delivered(self, container_id: str) -> None:
        """Wait, within a deadline, until who was attached to the last run has all its output."""
        await self._hub.delivered(container_id)
