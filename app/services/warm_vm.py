"""A VM that has gone once through a whole start, on throw-away disks, and waits for a container."""

import asyncio
import contextlib
import logging
import secrets
import time

from app.core.errors import DeadlineExceeded, SlipwayError
from app.core.ids import new_vm_id
from app.domain.container_config import ContainerConfig, plan_process
from app.domain.image import ImageConfig
from app.domain.sizing import BASE_MEMORY_BYTES, VmSize
from app.domain.vm import UNRESPONSIVE_AFTER_S, VmEndReason
from app.guest.agent import Agent
from app.guest.agent_types import ContainerSpec, ProcessExited
from app.guest.channel import GuestChannel
from app.guest.image import GuestImage
from app.guest.warm_up import WARM_UP_COMMAND
from app.hypervisor.port import DiskSpec, Hypervisor, Template, Vm, VmSpec
from app.services.guest_spec import SCRATCH_SERIAL, describe_container, layer_serials
from app.storage.scratch import ScratchDisks

POOL_LABEL = "pool"
ENTROPY_BYTES = 64
HEARD_WITHIN_S = UNRESPONSIVE_AFTER_S
WARM_UP_TIMEOUT_S = 60.0
STOP_GRACE_S = 2.0
STREAM_ID = 3  # of no container: one that was read to its end is not opened again
HOSTNAME = "warm-up"
KEPT_OUTPUT_BYTES = 1024

logger = logging.getLogger(__name__)


class WarmVm:
    """A VM with its channel, which one task keeps connected.

    Who claims it takes over channel and task, and `vm` with them.

    Attributes:
        serving: Runs the channel until cancelled.
        ended: Done when the VM has ended by itself.
        resident_bytes: What the host gave it when that was last sampled.
    """

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.channel = GuestChannel(vm.open_channel, name=vm.spec.id)
        self.serving = asyncio.create_task(self.channel.run())
        self.ended = asyncio.create_task(self._watch())
        self.resident_bytes = 0
        self._ending: asyncio.Task[None] | None = None

    async def sample_host_memory(self) -> None:
        """Measure what the host gives it.

        Raises:
            Unavailable: The VM is gone.
        """
        self.resident_bytes = (await self.vm.stats()).resident_bytes

    async def _watch(self) -> None:
        with contextlib.suppress(SlipwayError):
            await self.vm.wait()

    @property
    def is_usable(self) -> bool:
        """Whether it runs and its agent was heard just now."""
        return (
            not self.ended.done()
            and self.channel.is_connected
            and self.channel.silent_s <= HEARD_WITHIN_S
        )

    def leave_pool(self) -> None:
        """The claimer watches it from now on."""
        self.ended.cancel()

    async def end(self) -> None:
        """End it, and leave nothing of it. Idempotent; goes on when the caller is cancelled."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        self.ended.cancel()
        self.serving.cancel()
        await asyncio.wait({self.ended, self.serving})
        try:
            await self.vm.stop(VmEndReason.STOPPED, grace_s=STOP_GRACE_S)
            await self.vm.discard()
        except SlipwayError as error:  # the next engine's start finds it
            logger.warning("VM %s of the pool: %s", self.vm.spec.id, error.message)


class Warmer:
    """Makes VMs of one shape and exercises each.

    Args:
        hypervisor: Clones and attaches.
        guest: What the template has booted, and the layer to warm up with.
        scratch: Makes the throw-away disks.
        size: The shape, and the limits of the container that warms up.
        scratch_size_bytes: As containers get.
        spill_bytes: As containers get.
        connect_timeout_s: How long an agent may take to answer.
    """

    def __init__(
        self,
        *,
        hypervisor: Hypervisor,
        guest: GuestImage,
        scratch: ScratchDisks,
        size: VmSize,
        scratch_size_bytes: int,
        spill_bytes: int,
        connect_timeout_s: float,
    ) -> None:
        self.size = size
        self._hypervisor = hypervisor
        self._guest = guest
        self._scratch = scratch
        self._scratch_size_bytes = scratch_size_bytes
        self._spill_bytes = spill_bytes
        self._connect_timeout_s = connect_timeout_s

    async def clone(self, template: Template) -> WarmVm:
        """Make a VM, connected, that has still to warm up; after a failure nothing is left.

        Raises:
            CorruptData: The template is of no use.
            SlipwayError: As Hypervisor.clone.
        """
        spec = VmSpec(
            id=new_vm_id(),
            vcpus=self.size.vcpus,
            memory_bytes=self.size.memory_bytes,
            kernel=self._guest.kernel,
            initrd=self._guest.initrd,
            cmdline=self._guest.cmdline,
            disks=(),
            labels={POOL_LABEL: f"{self.size.vcpus}/{self.size.memory_bytes}"},
        )
        return WarmVm(await self._hypervisor.clone(template, spec))

    async def until_answers(self, warm: WarmVm) -> None:
        """Wait for the agent.

        Raises:
            DeadlineExceeded: It does not answer.
        """
        await warm.channel.connected(self._connect_timeout_s)

    async def warm_up(self, warm: WarmVm) -> None:
        """Go through a whole start and its end, and leave nothing of it in the VM.

        Raises:
            SlipwayError: Something failed, or took too long: the VM is not fit for a container.
        """
        try:
            async with asyncio.timeout(WARM_UP_TIMEOUT_S):
                await self._warm_up(warm)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"VM {warm.vm.spec.id} was not warm within {WARM_UP_TIMEOUT_S:g} s"
            ) from error

    async def _warm_up(self, warm: WarmVm) -> None:
        agent = Agent(warm.channel)
        # Until then it has its template's random numbers and time.
        await agent.seed_entropy(secrets.token_bytes(ENTROPY_BYTES))
        await agent.set_clock(time.time_ns())
        if self.size.memory_bytes > BASE_MEMORY_BYTES:
            await agent.await_memory(self.size.memory_bytes)
        disk_id = f"warmup{warm.vm.spec.id}"
        making = asyncio.create_task(self._scratch.create(disk_id, self._scratch_size_bytes))
        try:
            scratch = await asyncio.shield(making)
            disks = (
                DiskSpec(layer_serials(1)[0], self._guest.warm_up_layer, read_only=True),
                DiskSpec(SCRATCH_SERIAL, scratch, read_only=False),
            )
            for disk in disks:
                await warm.vm.attach_disk(disk)
            await _run_once(agent, self._describe(warm.vm.spec.id))
            for disk in disks:
                await warm.vm.detach_disk(disk.serial)
        finally:
            # A thread makes it, and goes on when we are cancelled.
            await asyncio.gather(making, return_exceptions=True)
            await self._scratch.remove(disk_id)

    def _describe(self, vm_id: str) -> ContainerSpec:
        config = ContainerConfig(image="", command=(WARM_UP_COMMAND,))
        return describe_container(
            config,
            plan_process(config, ImageConfig(), hostname=HOSTNAME),
            container_id=f"warmup{vm_id}",
            hostname=HOSTNAME,
            size=self.size,
            layer_count=1,
            spill_bytes=self._spill_bytes,
            output_stream=STREAM_ID,
            stdin_stream=0,
        )


async def _run_once(agent: Agent, spec: ContainerSpec) -> None:
    """Create, start, read all output, see the exit, delete: as for a container."""
    await agent.create(spec)
    stream = agent.channel.open_output(STREAM_ID)
    await agent.start(spec.container_id)
    output = b""
    async for chunk in stream:
        output = (output + chunk.data)[-KEPT_OUTPUT_BYTES:]
        stream.acknowledge(chunk.end_offset, eof=chunk.eof)
    exited = await _next_exit(agent)
    if exited.exit_code != 0:
        text = output.decode("utf-8", "replace")
        raise SlipwayError(f"The warm-up ended with {exited.exit_code}: {text}")
    await agent.delete(spec.container_id)


async def _next_exit(agent: Agent) -> ProcessExited:
    while True:
        event = await agent.next_event()
        agent.channel.acknowledge_event(event.number)
        if isinstance(event, ProcessExited):
            return event
