"""Changes of a container's limits and restart policy after it was made."""

from collections.abc import Callable
from dataclasses import replace

from app.core.errors import Conflict
from app.core.units import MIB
from app.domain.container import Container, ContainerState
from app.domain.container_checks import check_config
from app.domain.container_config import ContainerConfig
from app.oci.store import ImageStore
from app.services.admission import Admission
from app.services.guest_spec import changed_limits
from app.services.registry import ContainerRegistry, Happening
from app.services.supervisor import Supervisor


class LimitService:
    """Applies what can be changed to the record, and to the VM of a container that runs."""

    def __init__(
        self,
        registry: ContainerRegistry,
        images: ImageStore,
        admission: Admission,
        supervisor: Supervisor,
    ) -> None:
        self._registry = registry
        self._images = images
        self._admission = admission
        self._supervisor = supervisor

    async def update(
        self,
        reference: str,
        change: Callable[[ContainerConfig], ContainerConfig],
        *,
        initiator: str,
    ) -> Container:
        """Change limits or the restart policy; of a container that runs, its limits at once.

        Args:
            reference: Which container.
            change: Gives the new configuration.
            initiator: Who asks.

        Raises:
            NotFound: No such container.
            InvalidFields: The new configuration can't be.
            Conflict: It runs, and its VM is too small for the new limits.
        """
        container = await self._registry.find(reference)
        check_config(change(container.config))
        if container.state in {ContainerState.RUNNING, ContainerState.PAUSED}:
            await self._apply(container, change(container.config))
        return await self._registry.update(
            container.id,
            lambda before: replace(before, config=change(before.config)),
            Happening("update", initiator),
        )

    async def _apply(self, container: Container, config: ContainerConfig) -> None:
        run = self._supervisor.run_of(container)
        layer_count = len(self._images.get(container.image_id).mounted_diff_ids)
        size = self._admission.size(config, layer_count=layer_count)
        spec = run.vm.spec
        if size.memory_bytes > spec.memory_bytes or size.vcpus > spec.vcpus:
            raise Conflict(
                f"Cannot update container {container.id}: its virtual machine has "
                f"{spec.memory_bytes // MIB} MiB and {spec.vcpus} CPUs, too few for the new "
                "limits; stop the container first"
            )
        await run.agent.update(container.id, changed_limits(config, size))

    def cpus_of(self, container: Container) -> int:
        """How many CPUs its VM has; 0 without one."""
        life = self._supervisor.life(container.id)
        return life.run.vm.spec.vcpus if life is not None and life.run is not None else 0
