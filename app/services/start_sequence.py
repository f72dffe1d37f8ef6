"""What a guest is asked for when a container starts: as much as possible at a time.

    seed entropy, set clock, CREATE, wait for memory    sent together; meanwhile disks are attached
    START                                               once all that is done, CREATE aside
    streams                                             once CREATE is answered

The guest takes requests in the order in which they come, CREATE waits in there for its disks, and
START for CREATE. So nothing of the container runs before the guest has its own random numbers, the
time, all its memory and the label by which a later engine finds it.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from app.core.errors import GuestFailed, SlipwayError
from app.core.tasks import first_error
from app.domain.sizing import BASE_MEMORY_BYTES
from app.domain.vm import StartPath
from app.guest.agent_types import ContainerSpec
from app.hypervisor.port import DiskSpec
from app.services.run import Run
from app.services.warm_vm import ENTROPY_BYTES

CREATE_TIMEOUT_S = 60.0
START_TIMEOUT_S = 30.0


class StartSequence:
    """One start of a container in a VM whose agent answers.

    Args:
        run: Of the VM.
        spec: The container.
        disks: Still to be attached.
        labels: The VM's from now on; None: it has them.
        open_streams: Called once the container's streams are there.
    """

    def __init__(
        self,
        run: Run,
        spec: ContainerSpec,
        *,
        disks: tuple[DiskSpec, ...],
        labels: dict[str, str] | None,
        open_streams: Callable[[], Awaitable[None]],
    ) -> None:
        self._run = run
        self._spec = spec
        self._disks = disks
        self._labels = labels
        self._open_streams = open_streams
        self._created_at_s = 0.0

    async def go(self) -> None:
        """Go through it; returns once the first process runs.

        Raises:
            SlipwayError: What failed first; `run.is_taken` tells whether it was the container.
        """
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                agent = self._run.agent
                entropy = secrets.token_bytes(ENTROPY_BYTES)
                needed: list[asyncio.Task[Any]] = [
                    group.create_task(agent.seed_entropy(entropy)),
                    group.create_task(agent.set_clock(time.time_ns())),
                ]
                created = group.create_task(self._create())
                needed += [group.create_task(work) for work in self._preparations()]
                group.create_task(self._start(needed, created))
        except* SlipwayError as group_of_errors:
            failure = first_error(group_of_errors)
        if failure is not None:
            raise failure

    def _preparations(self) -> list[Coroutine[Any, Any, None]]:
        vm, found = self._run.vm, []
        if self._run.start_path is StartPath.CLONE and vm.spec.memory_bytes > BASE_MEMORY_BYTES:
            found.append(self._run.agent.await_memory(vm.spec.memory_bytes))
        found += [vm.attach_disk(disk) for disk in self._disks]
        if self._labels is not None:
            found.append(vm.relabel(self._labels))
        return found

    async def _create(self) -> None:
        began_s = time.monotonic()
        try:
            created = await self._run.agent.create(self._spec, timeout_s=CREATE_TIMEOUT_S)
        except GuestFailed:
            self._run.is_taken = True
            raise
        self._run.is_taken = True
        self._created_at_s = time.monotonic()
        self._run.note_guest_stages(created.stages, self._created_at_s - began_s)
        await self._open_streams()

    async def _start(self, needed: list[asyncio.Task[Any]], created: asyncio.Task[None]) -> None:
        await asyncio.wait(needed)
        for task in needed:
            task.result()
        ready_at_s = time.monotonic()
        await self._run.agent.start(
            self._spec.container_id, timeout_s=CREATE_TIMEOUT_S + START_TIMEOUT_S
        )
        started_at_s = time.monotonic()
        await created
        if ready_at_s > self._created_at_s:
            self._run.note_stage("memory", ready_at_s - self._created_at_s)
        self._run.note_stage("exec", started_at_s - max(ready_at_s, self._created_at_s))
