"""The engine: its parts run in order, and are taken down in the reverse one."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from app.assembly import Ground, Machine, Stores, Workers, assemble, open_stores, tell_of_host
from app.core.errors import SlipwayError
from app.domain.event import EventType
from app.services.bundle import Services
from app.services.hosts import read_host_facts
from app.services.residency import ResidencySampler
from app.settings import Settings
from app.storage.ballast import Ballast

READY_TIMEOUT_S = 120.0
UPKEEP_INTERVAL_S = 3600.0
BALLAST_INTERVAL_S = 30.0

logger = logging.getLogger(__name__)


@asynccontextmanager
async def run_engine(settings: Settings, machine: Machine) -> AsyncIterator[Services]:
    """Run the engine for as long as the context lasts; VMs run on after it.

    The data directory is there and locked by this process. On entering, what runs has been
    adopted and records are true.

    Raises:
        SlipwayError: A part can't be used; the message says which. Nothing is left running.
    """
    async with AsyncExitStack() as stack:
        stores = await open_stores(settings, stack)
        stack.push_async_callback(machine.hypervisor.close)
        facts = await asyncio.to_thread(read_host_facts)
        accelerator = await machine.hypervisor.accelerator()
        services, workers = assemble(Ground(settings, machine, stores, facts, accelerator))
        known_ids = {container.id for container in await services.containers.list()}
        for orphan in await stores.scratch.remove_orphans(known_ids):
            logger.warning("Scratch disk %s belonged to no container: removed", orphan)
        await stack.enter_async_context(_background(workers, services, stores, settings))
        await services.events.note(EventType.HOST, "engine-start", "local", facts.name)
        yield services


@asynccontextmanager
async def _background(
    workers: Workers, services: Services, stores: Stores, settings: Settings
) -> AsyncIterator[None]:
    """Run the engine's own tasks; entered once the supervisor has found what runs."""
    ready = asyncio.Event()
    supervisor = workers.supervisor
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(supervisor.run(ready)),
            group.create_task(services.stats.run()),
            group.create_task(services.health.run()),
            group.create_task(services.files.run()),
            group.create_task(ResidencySampler(workers.memory_samplers).run()),
            group.create_task(_keep_vms_ready(workers, ready)),
            group.create_task(_upkeep(services, stores, settings)),
            group.create_task(_tell_log_faults(services, stores)),
            group.create_task(_keep_ballast(stores.ballast)),
        ]
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await ready.wait()
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _keep_vms_ready(workers: Workers, ready: asyncio.Event) -> None:
    """Begin with templates and pool once it is known which VMs of an earlier engine run."""
    await ready.wait()
    async with asyncio.TaskGroup() as group:
        group.create_task(workers.templates.run())
        group.create_task(workers.pool.run())


async def _upkeep(services: Services, stores: Stores, settings: Settings) -> None:
    """Once an hour: retention of logs and of the journal."""
    while True:
        try:
            containers = await services.containers.list()
            await stores.log_store.prune(
                settings.log_retention_days, containers={each.id for each in containers}
            )
            await services.events.prune()
        except SlipwayError as error:
            logger.warning("Upkeep: %s", error.message)
        await asyncio.sleep(UPKEEP_INTERVAL_S)


async def _tell_log_faults(services: Services, stores: Stores) -> None:
    """Write what the log store met (a damaged day file set aside) into the journal."""
    while True:
        text = await stores.log_faults.get()
        await tell_of_host(services.events, "log-fault", {"error": text})


async def _keep_ballast(ballast: Ballast) -> None:
    """Lay the ballast in again once what filled the disk is gone."""
    while True:
        await ballast.lay_in()
        await asyncio.sleep(BALLAST_INTERVAL_S)
