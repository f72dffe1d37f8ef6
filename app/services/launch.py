"""From a record to a container that runs in a VM of its own.

A start takes the first path that there is something for: a warmed VM of the pool, a clone of the
template, a boot. A VM that fails before it has answered for the container is ended, and the start
goes on with the next path. The scratch disk belongs to the container and stays for its next start.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.core.errors import (
    CorruptData,
    DeadlineExceeded,
    ResourceExhausted,
    SlipwayError,
)
from app.core.ids import new_vm_id
from app.domain.container import Container
from app.domain.container_config import ProcessPlan, plan_process
from app.domain.image import Image
from app.domain.sizing import VmSize
from app.domain.vm import StartPath, VmEndReason
from app.guest.agent_types import ContainerSpec
from app.guest.image import GuestImage
from app.hypervisor.port import DiskSpec, Hypervisor, Vm, VmSpec
from app.oci.store import ImageStore
from app.services.admission import Admission
from app.services.demand import Demand
from app.services.guest_spec import SCRATCH_SERIAL, describe_container, layer_serials
from app.services.pool import WarmPool
from app.services.run import OUTPUT_STREAM_ID, STDIN_STREAM_ID, Run
from app.services.start_sequence import StartSequence
from app.services.templates import TemplateShelf
from app.services.warm_vm import WarmVm
from app.storage.scratch import ScratchDisks

logger = logging.getLogger(__name__)

CONTAINER_LABEL = "container"
# At a time, for each CPU: a QEMU that gets none misses the deadlines of its start.
VMS_COMING_UP_PER_CPU = 2


@dataclass(frozen=True)
class Blueprint:
    """All that a start needs, decided before anything is made."""

    container: Container
    image: Image
    plan: ProcessPlan
    size: VmSize
    hostname: str


@dataclass(frozen=True)
class PoweredOn:
    """A VM for a start.

    Attributes:
        path: How it came about.
        disks: What it has still to get.
        warm: What else there is of one that waited; its channel has been running.
        at_s: When it was there, by the monotonic clock.
        boots: How many VMs have been booted for this start.
    """

    blueprint: Blueprint
    vm: Vm
    path: StartPath
    disks: tuple[DiskSpec, ...] = ()
    warm: WarmVm | None = None
    at_s: float = 0.0
    boots: int = 0

    @property
    def container(self) -> Container:
        """What it is for."""
        return self.blueprint.container

    def may_go_on(self, run: Run, reason: VmEndReason) -> bool:
        """Whether a start that has failed in this VM may be tried in another one.

        Not once the guest has answered for the container: then the fault is its own, or it may
        have run. After a boot only if the hypervisor crashed, and once: under emulation QEMU does
        when one of several vCPUs uses a device while another moves its registers.
        """
        if run.is_started or run.is_taken:
            return False
        return self.path is not StartPath.BOOT or (self.boots == 1 and reason is VmEndReason.FAILED)


class Launcher:
    """Makes VMs for containers, and has the containers start in them."""

    def __init__(
        self,
        *,
        hypervisor: Hypervisor,
        guest: GuestImage,
        images: ImageStore,
        scratch: ScratchDisks,
        admission: Admission,
        templates: TemplateShelf,
        pool: WarmPool,
        demand: Demand,
        host_cpus: int,
        scratch_size_bytes: int,
        spill_bytes: int,
    ) -> None:
        self._hypervisor = hypervisor
        self._guest = guest
        self._images = images
        self._scratch = scratch
        self._admission = admission
        self._templates = templates
        self._pool = pool
        self._demand = demand
        self._coming_up = asyncio.Semaphore(VMS_COMING_UP_PER_CPU * host_cpus)
        self._scratch_size_bytes = scratch_size_bytes
        self._spill_bytes = spill_bytes

    async def power_on(self, container: Container, *, after: PoweredOn | None = None) -> PoweredOn:
        """Take a VM from the pool, or start one; VMs of the pool go if it needs their memory.

        Args:
            container: What it is for.
            after: What this start has failed with before: it goes on by a later path.

        Returns:
            The VM; after a failure none is left.

        Raises:
            NotFound: The image is gone.
            InvalidFields: There is no command to run.
            ResourceExhausted: The host has too little memory.
            SlipwayError: Of the image store, the scratch disk or the hypervisor.
        """
        blueprint = await self._draw_up(container) if after is None else after.blueprint
        self._demand.begin(container.id)
        try:
            return await self._power_on(blueprint, after)
        except BaseException:
            self._demand.end(container.id)
            raise

    async def _draw_up(self, container: Container) -> Blueprint:
        hostname = container.config.hostname or container.short_id
        image = self._images.get(container.image_id)
        plan = plan_process(container.config, image.config, hostname=hostname)
        size = await self._admit(container, layer_count=len(image.mounted_diff_ids))
        self._demand.note()
        return Blueprint(container, image, plan, size, hostname)

    async def _admit(self, container: Container, *, layer_count: int) -> VmSize:
        while True:
            try:
                return await self._admission.require(
                    container.config, layer_count=layer_count, name=container.name
                )
            except ResourceExhausted:
                if not await self._pool.give_up_one():
                    raise

    async def _power_on(self, blueprint: Blueprint, after: PoweredOn | None) -> PoweredOn:
        disks = await self._disks(blueprint)
        size = blueprint.size
        if after is None:
            warm = self._pool.claim(size.vcpus, size.memory_bytes)
            if warm is not None:
                return PoweredOn(blueprint, warm.vm, StartPath.POOL, disks, warm, time.monotonic())
        spec = VmSpec(
            id=new_vm_id(),
            vcpus=size.vcpus,
            memory_bytes=size.memory_bytes,
            kernel=self._guest.kernel,
            initrd=self._guest.initrd,
            cmdline=self._guest.cmdline,
            disks=disks,
            labels={CONTAINER_LABEL: blueprint.container.id},
        )
        async with self._coming_up:
            if after is None or after.path is StartPath.POOL:
                clone = await self._clone(spec)
                if clone is not None:
                    return PoweredOn(blueprint, clone, StartPath.CLONE)
            vm = await self._hypervisor.create(spec)
        boots = 1 + (after.boots if after is not None else 0)
        return PoweredOn(blueprint, vm, StartPath.BOOT, boots=boots)

    async def _disks(self, blueprint: Blueprint) -> tuple[DiskSpec, ...]:
        """The image's, and the container's own, made if this is its first start."""
        container_id = blueprint.container.id
        layers = await self._images.layer_disks(blueprint.image)
        scratch = await self._scratch.ensure(container_id, self._scratch_size_bytes)
        return (
            *(
                DiskSpec(serial, path, read_only=True)
                for serial, path in zip(layer_serials(len(layers)), layers, strict=True)
            ),
            DiskSpec(SCRATCH_SERIAL, scratch, read_only=False),
        )

    async def _clone(self, spec: VmSpec) -> Vm | None:
        """A clone; None if there is no template for it, or cloning failed: then a boot helps."""
        template = self._templates.take(spec.vcpus)
        if template is None:
            return None
        try:
            return await self._hypervisor.clone(template, spec)
        except CorruptData as error:
            await self._templates.drop(template, error)
            logger.warning("VM %s boots, its template is of no use: %s", spec.id, error.message)
        except SlipwayError as error:
            logger.warning("VM %s boots, it could not be cloned: %s", spec.id, error.message)
        return None

    async def start(
        self,
        run: Run,
        powered: PoweredOn,
        *,
        boot_timeout_s: float,
        open_streams: Callable[[], Awaitable[None]],
    ) -> None:
        """Wait for the agent, make the container in the guest and let its process go.

        Args:
            run: Of the VM.
            powered: As `power_on` gave it.
            boot_timeout_s: How long the agent may take to answer.
            open_streams: Called once the container's streams are there.

        Raises:
            SlipwayError: The guest did not come up, or refused.
        """
        try:
            await self._connect(run, powered, boot_timeout_s)
            is_pooled = powered.path is StartPath.POOL
            await StartSequence(
                run,
                self._describe(powered.blueprint),
                disks=powered.disks,
                labels={CONTAINER_LABEL: run.container_id} if is_pooled else None,
                open_streams=open_streams,
            ).go()
        finally:
            self._demand.end(powered.blueprint.container.id)

    async def _connect(self, run: Run, powered: PoweredOn, boot_timeout_s: float) -> None:
        if powered.path is StartPath.POOL:
            run.note_claim(powered.at_s)
            return
        vcpus = powered.vm.spec.vcpus
        is_clone = powered.path is StartPath.CLONE
        try:
            hello = await run.channel.connected(boot_timeout_s)
        except DeadlineExceeded as error:
            if is_clone:
                await self._templates.clone_was_silent(vcpus, error)
            raise
        if is_clone:
            self._templates.clone_answered(vcpus)
        run.note_boot(hello)

    def _describe(self, blueprint: Blueprint) -> ContainerSpec:
        return describe_container(
            blueprint.container.config,
            blueprint.plan,
            container_id=blueprint.container.id,
            hostname=blueprint.hostname,
            size=blueprint.size,
            layer_count=len(blueprint.image.mounted_diff_ids),
            spill_bytes=self._spill_bytes,
            output_stream=OUTPUT_STREAM_ID,
            stdin_stream=STDIN_STREAM_ID,
        )
