"""From a record to a VM whose first process waits for its go.

Steps are ordered so that each is undone by the one function that ends a run: `Vm.stop` and
`discard`. The scratch disk belongs to the container and stays for its next start.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from app.core.errors import CorruptData, DeadlineExceeded, SlipwayError
from app.core.ids import new_vm_id
from app.domain.container import Container
from app.domain.container_config import ProcessPlan, plan_process
from app.domain.image import Image
from app.domain.sizing import BASE_MEMORY_BYTES, VmSize
from app.domain.vm import StartPath
from app.guest.agent_types import ContainerSpec
from app.guest.image import GuestImage
from app.hypervisor.port import DiskSpec, Hypervisor, Vm, VmSpec
from app.oci.store import ImageStore
from app.services.admission import Admission
from app.services.guest_spec import describe_container
from app.services.run import Run
from app.services.templates import TemplateShelf
from app.storage.scratch import ScratchDisks

logger = logging.getLogger(__name__)

SCRATCH_SERIAL = "scratch"
CONTAINER_LABEL = "container"
ENTROPY_BYTES = 64
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


class Launcher:
    """Makes VMs for containers."""

    def __init__(
        self,
        *,
        hypervisor: Hypervisor,
        guest: GuestImage,
        images: ImageStore,
        scratch: ScratchDisks,
        admission: Admission,
        templates: TemplateShelf,
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
        self._coming_up = asyncio.Semaphore(VMS_COMING_UP_PER_CPU * host_cpus)
        self._scratch_size_bytes = scratch_size_bytes
        self._spill_bytes = spill_bytes

    async def draw_up(self, container: Container) -> Blueprint:
        """Check that the start can be done.

        Raises:
            NotFound: The image is gone.
            InvalidFields: There is no command to run.
            ResourceExhausted: The host has too little memory.
        """
        hostname = container.config.hostname or container.short_id
        image = self._images.get(container.image_id)
        plan = plan_process(container.config, image.config, hostname=hostname)
        size = await self._admission.require(
            container.config, layer_count=len(image.mounted_diff_ids), name=container.name
        )
        return Blueprint(container, image, plan, size, hostname)

    async def power_on(self, blueprint: Blueprint) -> tuple[Vm, StartPath]:
        """Make the disks and start the VM, as a clone if there is a template for its vCPUs.

        After a failure no VM is left.

        Raises:
            SlipwayError: Of the image store, the scratch disk or the hypervisor.
        """
        container = blueprint.container
        layers = await self._images.layer_disks(blueprint.image)
        scratch = self._scratch.path(container.id)
        if not await asyncio.to_thread(scratch.exists):
            scratch = await self._scratch.create(container.id, self._scratch_size_bytes)
        disks = [
            DiskSpec(serial=_layer_serial(position), path=path, read_only=True)
            for position, path in enumerate(layers)
        ]
        spec = VmSpec(
            id=new_vm_id(),
            vcpus=blueprint.size.vcpus,
            memory_bytes=blueprint.size.memory_bytes,
            kernel=self._guest.kernel,
            initrd=self._guest.initrd,
            cmdline=self._guest.cmdline,
            disks=(*disks, DiskSpec(serial=SCRATCH_SERIAL, path=scratch, read_only=False)),
            labels={CONTAINER_LABEL: container.id},
        )
        async with self._coming_up:
            vm = await self._clone(spec)
            if vm is not None:
                return vm, StartPath.CLONE
            return await self._hypervisor.create(spec), StartPath.BOOT

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

    async def prepare(self, run: Run, blueprint: Blueprint, *, boot_timeout_s: float) -> None:
        """Wait for the agent and create the container in the guest; its process waits for START.

        Raises:
            SlipwayError: The guest did not come up, or refused.
        """
        is_clone = run.start_path is StartPath.CLONE
        try:
            hello = await run.channel.connected(boot_timeout_s)
        except DeadlineExceeded as error:
            if is_clone:
                await self._templates.clone_was_silent(run.vm.spec.vcpus, error)
            raise
        if is_clone:
            self._templates.clone_answered(run.vm.spec.vcpus)
        run.note_boot(hello)
        began_s = time.monotonic()
        # Before all else: a clone has its template's random numbers and time until then.
        await run.agent.seed_entropy(secrets.token_bytes(ENTROPY_BYTES))
        await run.agent.set_clock(time.time_ns())
        run.note_stage("clock and entropy", time.monotonic() - began_s)
        async with _memory_online(run, is_needed=is_clone):
            began_s = time.monotonic()
            created = await run.agent.create(self._describe(blueprint))
            run.note_guest_stages(created.stages, time.monotonic() - began_s)
            began_s = time.monotonic()
        if is_clone:
            run.note_stage("memory", time.monotonic() - began_s)

    def _describe(self, blueprint: Blueprint) -> ContainerSpec:
        return describe_container(
            blueprint.container.config,
            blueprint.plan,
            container_id=blueprint.container.id,
            hostname=blueprint.hostname,
            layers=tuple(map(_layer_serial, range(len(blueprint.image.mounted_diff_ids)))),
            scratch=SCRATCH_SERIAL,
            spill_bytes=self._spill_bytes,
            size=blueprint.size,
        )


@contextlib.asynccontextmanager
async def _memory_online(run: Run, *, is_needed: bool) -> AsyncIterator[None]:
    """Meanwhile the guest puts a clone's memory above its template's online; at the end it is.

    Raises:
        SlipwayError: The guest does not get it online.
    """
    memory_bytes = run.vm.spec.memory_bytes
    if not is_needed or memory_bytes <= BASE_MEMORY_BYTES:
        yield
        return
    waiting = asyncio.create_task(run.agent.await_memory(memory_bytes))
    try:
        yield
        await waiting
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


def _layer_serial(position: int) -> str:
    return f"layer-{position}"
