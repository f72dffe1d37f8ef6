"""VMs that have a container's disks: for its start, and for its files while it does not run."""

import asyncio
import logging

from app.core.errors import CorruptData, SlipwayError
from app.core.ids import new_vm_id
from app.domain.image import Image
from app.guest.image import GuestImage
from app.hypervisor.port import DiskSpec, Hypervisor, Vm, VmSpec
from app.oci.store import ImageStore
from app.services.guest_spec import SCRATCH_SERIAL, layer_serials
from app.services.templates import TemplateShelf
from app.storage.scratch import ScratchDisks

# At a time, for each CPU: a QEMU that gets none misses the deadlines of its start.
VMS_COMING_UP_PER_CPU = 2

logger = logging.getLogger(__name__)


class ContainerVms:
    """Makes disks and VMs; how many VMs come up at a time is bounded here for all who ask.

    Args:
        hypervisor: Clones and boots.
        guest: What they boot.
        images: Has the layers.
        scratch: Has the containers' own disks, which stay for the next start.
        templates: Has what is cloned.
        host_cpus: Bounds how many come up.
        scratch_size_bytes: Of a container's own disk.
    """

    def __init__(
        self,
        *,
        hypervisor: Hypervisor,
        guest: GuestImage,
        images: ImageStore,
        scratch: ScratchDisks,
        templates: TemplateShelf,
        host_cpus: int,
        scratch_size_bytes: int,
    ) -> None:
        self._hypervisor = hypervisor
        self._guest = guest
        self._images = images
        self._scratch = scratch
        self._templates = templates
        self._coming_up = asyncio.Semaphore(VMS_COMING_UP_PER_CPU * host_cpus)
        self._scratch_size_bytes = scratch_size_bytes

    async def disks(self, container_id: str, image: Image) -> tuple[DiskSpec, ...]:
        """The image's, and the container's own, made if it has none yet.

        Raises:
            SlipwayError: Of the image store or the scratch disk.
        """
        layers = await self._images.layer_disks(image)
        scratch = await self._scratch.ensure(container_id, self._scratch_size_bytes)
        return (
            *(
                DiskSpec(serial, path, read_only=True)
                for serial, path in zip(layer_serials(len(layers)), layers, strict=True)
            ),
            DiskSpec(SCRATCH_SERIAL, scratch, read_only=False),
        )

    def spec(
        self, *, vcpus: int, memory_bytes: int, disks: tuple[DiskSpec, ...], labels: dict[str, str]
    ) -> VmSpec:
        """A VM of the guest that is shipped."""
        return VmSpec(
            id=new_vm_id(),
            vcpus=vcpus,
            memory_bytes=memory_bytes,
            kernel=self._guest.kernel,
            initrd=self._guest.initrd,
            cmdline=self._guest.cmdline,
            disks=disks,
            labels=labels,
        )

    async def make(self, spec: VmSpec, *, may_clone: bool = True) -> tuple[Vm, bool]:
        """Start the VM; tells also whether it is a clone. After a failure none is left.

        Raises:
            SlipwayError: Of the hypervisor.
        """
        async with self._coming_up:
            if may_clone and (clone := await self._clone(spec)) is not None:
                return clone, True
            return await self._hypervisor.create(spec), False

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
