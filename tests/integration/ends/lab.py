"""Containers that have been stopped, and what there is to see of their end."""

import asyncio

from app.domain.container import Container
from app.domain.container_config import ContainerConfig
from app.services.bundle import Services
from tests.integration.engine_lab import DEADLINE_S, WHO, EngineLab, launch

TRAP = ContainerConfig(image="busybox", command=("trap", "7"))


async def stopped(services: Services, config: ContainerConfig = TRAP) -> Container:
    """Run and stop a container; the record is that of its run, with the VM's id."""
    container = await launch(services, config)
    async with asyncio.timeout(DEADLINE_S):
        await services.containers.stop(container.id, initiator=WHO)
    return container


async def actions(services: Services, container_id: str) -> list[str]:
    events = await services.events.list(actor_id=container_id, limit=1000)
    return [event.action for event in reversed(events)]


def is_unmounted(lab: EngineLab, container: Container) -> bool:
    """Whether the guest of that run was given the time to save its disk."""
    return container.id not in lab.guest_of(container).containers
