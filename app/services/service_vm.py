"""VMs that serve the files of containers that have no VM of their own just now.

The host never mounts a file system that a guest has written. So a stopped container's disks are put
into a VM, its root is made there as for a start, and no process is started: what reads and writes
files is the same as in a running container. Such a VM stays for a few seconds for the next
question, and makes way for a start.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.core.errors import SlipwayError, Unavailable
from app.domain.container import Container
from app.domain.sizing import BASE_MEMORY_BYTES
from app.domain.vm import VmEndReason
from app.guest.agent import Agent
from app.guest.agent_types import ContainerSpec, ProcessSpec
from app.guest.channel import GuestChannel
from app.hypervisor.port import Vm
from app.oci.store import ImageStore
from app.services.container_vms import ContainerVms
from app.services.guest_spec import SCRATCH_SERIAL, layer_serials
from app.services.warm_vm import ENTROPY_BYTES

IDLE_S = 5.0
IDLE_CHECK_S = 0.5
CREATE_TIMEOUT_S = 60.0
DELETE_TIMEOUT_S = 30.0
STOP_GRACE_S = 2.0
SERVICE_LABEL = "service"
_OUTPUT_STREAM_ID = 1
_FIRST_STREAM_ID = 16

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reach:
    """A way to a container's files.

    Attributes:
        new_stream_id: Gives an id that no stream of the VM had before.
        layers: Serials of the disks below the container's own.
    """

    agent: Agent
    new_stream_id: Callable[[], int]
    layers: tuple[str, ...]


class _Service:
    """One VM, from before its start until it is gone."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.ready: asyncio.Future[Reach] = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()  # it shall go
        self.gone = asyncio.Event()
        self.users = 0
        self.idle_since_s = time.monotonic()


class ServiceVms:
    """At most one service VM for a container; `run` is one task of the engine's."""

    def __init__(
        self,
        *,
        vms: ContainerVms,
        images: ImageStore,
        vcpus: int,
        boot_timeout_s: float,
    ) -> None:
        self._vms = vms
        self._images = images
        self._vcpus = vcpus
        self._boot_timeout_s = boot_timeout_s
        self._services: dict[str, _Service] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Own the VMs until cancelled, and end them then."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await asyncio.Event().wait()
            finally:
                self._group = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DELETE_TIMEOUT_S):
                        await asyncio.gather(*map(self.give_way, list(self._services)))

    @asynccontextmanager
    async def use(self, container: Container) -> AsyncIterator[Reach]:
        """Reach the files of a container that has no VM.

        Raises:
            Unavailable: The engine is not ready, or a start has taken the container meanwhile.
            SlipwayError: The VM did not come up.
        """
        service = self._services.get(container.id)
        if service is not None and service.over.is_set():
            raise Unavailable(
                "The container's files are just being put away", advice="Try again in a moment."
            )
        if service is None:
            if self._group is None:
                raise Unavailable("The engine is not ready yet", advice="Try again in a moment.")
            service = self._services[container.id] = _Service(container)
            self._group.create_task(self._serve(service))
        service.users += 1
        try:
            yield await asyncio.shield(service.ready)
        finally:
            service.users -= 1
            service.idle_since_s = time.monotonic()

    async def left(self, container_id: str) -> None:
        """Wait for a VM that is on its way out; afterwards there is none, or one that serves."""
        while (service := self._services.get(container_id)) and service.over.is_set():
            await service.gone.wait()

    async def give_way(self, container_id: str) -> None:
        """End the container's service VM, if there is one: its disk is wanted, or to be removed."""
        service = self._services.get(container_id)
        if service is not None:
            service.over.set()
            await service.gone.wait()

    async def _serve(self, service: _Service) -> None:
        try:
            async with self._vm(service.container) as vm:
                await self._answer(service, vm)
        except SlipwayError as error:
            if not service.ready.done():
                service.ready.set_exception(error)
            else:
                logger.warning("Service VM of %s: %s", service.container.name, error.message)
        finally:
            if not service.ready.done():
                service.ready.set_exception(Unavailable("The engine is ending"))
            service.ready.exception()  # perhaps nobody waits any more
            if self._services.get(service.container.id) is service:
                del self._services[service.container.id]
            service.gone.set()

    @asynccontextmanager
    async def _vm(self, container: Container) -> AsyncIterator[Vm]:
        image = self._images.get(container.image_id)
        spec = self._vms.spec(
            vcpus=self._vcpus,
            memory_bytes=BASE_MEMORY_BYTES,
            disks=await self._vms.disks(container.id, image),
            labels={SERVICE_LABEL: container.id},
        )
        vm, _ = await self._vms.make(spec)
        try:
            yield vm
        finally:
            await vm.stop(VmEndReason.STOPPED, grace_s=STOP_GRACE_S)
            await vm.discard()

    async def _answer(self, service: _Service, vm: Vm) -> None:
        """Make the container's root in the VM and serve until nobody needs it."""
        channel = GuestChannel(vm.open_channel, name=vm.spec.id)
        agent = Agent(channel)
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._until_over(service, agent))
            background = [
                group.create_task(channel.run()),
                group.create_task(_drop_events(agent)),
                group.create_task(_until_end(vm)),
            ]
            await asyncio.wait({work, background[2]}, return_when=asyncio.FIRST_COMPLETED)
            service.over.set()
            for task in (work, *background):
                task.cancel()
        if not service.ready.done():
            raise Unavailable("The VM for the container's files ended before it could serve them")

    async def _until_over(self, service: _Service, agent: Agent) -> None:
        container_id = service.container.id
        try:
            layers = await self._create(container_id, service.container, agent)
        except SlipwayError as error:
            service.ready.set_exception(error)
            return
        ids = iter(range(_FIRST_STREAM_ID, 1 << 31))
        service.ready.set_result(Reach(agent, lambda: next(ids), layers))
        service.idle_since_s = time.monotonic()
        while not service.over.is_set():
            if not service.users and time.monotonic() >= service.idle_since_s + IDLE_S:
                service.over.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_CHECK_S):
                    await service.over.wait()
        # What was written must be on the disk before anybody else opens it.
        with contextlib.suppress(SlipwayError):
            await agent.delete(container_id, timeout_s=DELETE_TIMEOUT_S)

    async def _create(
        self, container_id: str, container: Container, agent: Agent
    ) -> tuple[str, ...]:
        await agent.channel.connected(self._boot_timeout_s)
        await agent.seed_entropy(secrets.token_bytes(ENTROPY_BYTES))
        await agent.set_clock(time.time_ns())
        layers = layer_serials(len(self._images.get(container.image_id).mounted_diff_ids))
        await agent.create(
            ContainerSpec(
                container_id=container_id,
                hostname="service",
                layers=layers,
                scratch=SCRATCH_SERIAL,
                process=ProcessSpec(args=("/",), output_stream=_OUTPUT_STREAM_ID),
            ),
            timeout_s=CREATE_TIMEOUT_S,
        )
        return layers


async def _drop_events(agent: Agent) -> None:
    with contextlib.suppress(SlipwayError):
        while True:
            event = await agent.next_event()
            agent.channel.acknowledge_event(event.number)


async def _until_end(vm: Vm) -> None:
    await vm.wait()
