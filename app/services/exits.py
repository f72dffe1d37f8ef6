"""Who waits for a container's end: told once the end is recorded."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

from app.domain.container import Container, ContainerState

_WITH_A_PROCESS = frozenset(
    {ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.STOPPING}
)
_ENDED = frozenset({ContainerState.CREATED, ContainerState.EXITED, ContainerState.RESTARTING})
_BUSY = _WITH_A_PROCESS | {ContainerState.STARTING, ContainerState.RESTARTING}


class WaitCondition(StrEnum):
    """What is waited for, in Docker's words.

    A restart by policy does not hide the end before it.
    """

    NOT_RUNNING = "not-running"
    NEXT_EXIT = "next-exit"
    REMOVED = "removed"


class ExitBoard:
    """Futures with exit codes; `ContainerRegistry` resolves them after each commit."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, WaitCondition], set[asyncio.Future[int]]] = defaultdict(set)

    @asynccontextmanager
    async def expect(
        self, container: Container, condition: WaitCondition
    ) -> AsyncIterator["asyncio.Future[int]"]:
        """A future for the container's exit code; take part before the record is read."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        key = container.id, condition
        self._waiting[key].add(future)
        try:
            yield future
        finally:
            self._waiting[key].discard(future)
            if not self._waiting[key]:
                del self._waiting[key]

    def changed(self, before: Container, after: Container) -> None:
        """A change of the record is committed."""
        if after.state not in _ENDED or before.state not in _BUSY:
            return
        if before.state in _WITH_A_PROCESS:
            self._tell(after, WaitCondition.NEXT_EXIT)
        self._tell(after, WaitCondition.NOT_RUNNING)

    def removed(self, container: Container) -> None:
        """The record is gone."""
        for condition in WaitCondition:
            self._tell(container, condition)

    def _tell(self, container: Container, condition: WaitCondition) -> None:
        for future in self._waiting.get((container.id, condition), ()):
            if not future.done():
                future.set_result(container.exit_code)


def is_met(container: Container, condition: WaitCondition) -> bool:
    """Whether there is nothing to wait for."""
    return condition is WaitCondition.NOT_RUNNING and container.state not in _BUSY
