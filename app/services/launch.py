"""From a record to a container that runs in a VM of its own.

A start takes the first path that there is something for: a warmed VM of the pool, a clone of the
template, a boot. A VM that fails before it has answered for the container is ended, and the start
goes on with the next path. The scratch disk belongs to the container and stays for its next start.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.core.errors import (
    DeadlineExceeded,
    ResourceExhausted,
)
from app.domain.container import Container
from app.domain.container_config import ProcessPlan, plan_process
from app.domain.image import Image
from app.domain.sizing import VmSize
from app.domain.vm import StartPath, VmEndReason
from app.guest.agent_types import ContainerSpec
from app.hypervisor.port import DiskSpec, Vm
from app.oci.store import ImageStore
from app.services.admission import Admission
from app.services.container_vms import ContainerVms
from app.services.demand import Demand
from app.services.guest_spec import describe_container
from app.services.pool import WarmPool
from app.services.run import OUTPUT_STREAM_ID, STDIN_STREAM_ID, Run
from app.services.start_sequence import StartSequence
from app.services.templates import TemplateShelf
from app.services.warm_vm import WarmVm

logger = logging.getLogger(__name__)

CONTAINER_LABEL = "container"


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
        vms: ContainerVms,
        images: ImageStore,
        admission: Admission,
        templates: TemplateShelf,
        pool: WarmPool,
        demand: Demand,
        spill_bytes: int,
    ) -> None:
        self._vms = vms
        self._images = images
        self._admission = admission
        self._templates = templates
        self._pool = pool
        self._demand = demand
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
        disks = await self._vms.disks(blueprint.container.id, blueprint.image)
        size = blueprint.size
        if after is None:
            warm = self._pool.claim(size.vcpus, size.memory_bytes)
            if warm is not None:
                return PoweredOn(blueprint, warm.vm, StartPath.POOL, disks, warm, time.monotonic())
        spec = self._vms.spec(
            vcpus=size.vcpus,
            memory_bytes=size.memory_bytes,
            disks=disks,
            labels={CONTAINER_LABEL: blueprint.container.id},
        )
        may_clone = after is None or after.path is StartPath.POOL
        vm, is_clone = await self._vms.make(spec, may_clone=may_clone)
        if is_clone:
            return PoweredOn(blueprint, vm, StartPath.CLONE)
        return PoweredOn(
            blueprint, vm, StartPath.BOOT, boots=1 + (after.boots if after is not None else 0)
        )

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
