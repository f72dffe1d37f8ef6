"""The engine put together: every part made in order, and taken down in the reverse one."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import SlipwayError
from app.db.database import Database
from app.db.migrate import upgrade_database
from app.domain.container_config import ContainerConfig
from app.domain.event import EventType
from app.domain.vm import Accelerator
from app.guest.image import GuestImage
from app.hypervisor.port import Hypervisor
from app.logs.follow import LogHub
from app.logs.store import LogStore
from app.oci.registry.options import RegistryOptions, parse_insecure, parse_mirrors
from app.oci.starter import import_starter
from app.oci.store import DOWNLOADS, ImageStore
from app.services.accounts import AccountService
from app.services.admission import Admission
from app.services.attach import AttachService
from app.services.attachments import AttachHub
from app.services.bundle import Services
from app.services.cache_reclaim import CacheReclaim
from app.services.commits import CommitService
from app.services.console import ConsoleArchive
from app.services.containers import ContainerService
from app.services.demand import Demand
from app.services.events import EventService
from app.services.exec import ExecService
from app.services.feed import ChangeFeed
from app.services.files import FileService
from app.services.health import HealthService
from app.services.hosts import HostFacts, HostService, read_host_facts
from app.services.images import ImageService
from app.services.launch import Launcher
from app.services.limits import LimitService
from app.services.logs import LogService
from app.services.parts import EngineParts
from app.services.pool import WarmPool
from app.services.processes import ProcessService
from app.services.registries import RegistryService
from app.services.registry import ContainerRegistry
from app.services.residency import ResidencySampler, Sampler
from app.services.service_vm import ServiceVms
from app.services.stats import StatsService
from app.services.supervisor import Supervisor
from app.services.templates import TemplateShelf, TemplateView
from app.services.upkeep import UpkeepService
from app.services.warm_vm import Warmer
from app.settings import Settings
from app.storage.ballast import Ballast
from app.storage.scratch import ScratchDisks

READY_TIMEOUT_S = 120.0
UPKEEP_INTERVAL_S = 3600.0
KEPT_LOG_FAULTS = 100
BALLAST_INTERVAL_S = 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Machine:
    """What runs VMs on this host: chosen by `app.main`, or by a test."""

    hypervisor: Hypervisor
    hypervisor_version: str
    guest: GuestImage


@dataclass(frozen=True)
class _Stores:
    """Everything on disk, opened."""

    database: Database
    log_store: LogStore
    log_faults: asyncio.Queue[str]
    images: ImageStore
    scratch: ScratchDisks
    consoles: ConsoleArchive
    ballast: Ballast


@dataclass(frozen=True)
class _Workers:
    """What has tasks of its own and is no service."""

    supervisor: Supervisor
    templates: TemplateShelf
    pool: WarmPool

    def memory_samplers(self) -> list[Sampler]:
        """How to measure what the host gives each VM, containers' and waiting ones."""
        return [*self.supervisor.memory_samplers(), *self.pool.memory_samplers()]


@asynccontextmanager
async def run_engine(settings: Settings, machine: Machine) -> AsyncIterator[Services]:
    """Run the engine for as long as the context lasts; VMs run on after it.

    The data directory is there and locked by this process. On entering, what runs has been
    adopted and records are true.

    Raises:
        SlipwayError: A part can't be used; the message says which. Nothing is left running.
    """
    async with AsyncExitStack() as stack:
        stores = await _open_stores(settings, stack)
        stack.push_async_callback(machine.hypervisor.close)
        facts = await asyncio.to_thread(read_host_facts)
        accelerator = await machine.hypervisor.accelerator()
        services, workers = _assemble(settings, machine, stores, facts, accelerator)
        known_ids = {container.id for container in await services.containers.list()}
        for orphan in await stores.scratch.remove_orphans(known_ids):
            logger.warning("Scratch disk %s belonged to no container: removed", orphan)
        await stack.enter_async_context(_background(workers, services, stores, settings))
        await services.events.note(EventType.HOST, "engine-start", "local", facts.name)
        yield services


def _assemble(
    settings: Settings,
    machine: Machine,
    stores: _Stores,
    facts: HostFacts,
    accelerator: Accelerator,
) -> tuple[Services, _Workers]:
    feed = ChangeFeed()
    events = EventService(stores.database, feed)
    registry = ContainerRegistry(stores.database, events, feed, stores.ballast)
    hub = LogHub(stores.log_store)
    attach_hub = AttachHub()
    admission = _make_admission(settings, facts)
    containers = ContainerService(
        registry=registry,
        images=stores.images,
        scratch=stores.scratch,
        consoles=stores.consoles,
        admission=admission,
        stop_grace_s=settings.stop_grace_s,
    )
    templates = _make_shelf(settings, machine, facts, events)
    demand = Demand()
    pool = _make_pool(settings, machine, stores, facts, admission, templates, demand, events)
    launcher = _make_launcher(settings, machine, stores, facts, admission, templates, pool, demand)
    service_vms = _make_service_vms(settings, machine, stores, facts, templates)
    parts = EngineParts(
        hypervisor=machine.hypervisor,
        launcher=launcher,
        registry=registry,
        events=events,
        log_store=stores.log_store,
        log_hub=hub,
        attach_hub=attach_hub,
        consoles=stores.consoles,
        service_vms=service_vms,
        boot_timeout_s=settings.boot_timeout_s,
        accelerator=accelerator.name,
    )
    supervisor = Supervisor(parts, remove_ended=containers.remove_ended)
    containers.bind(supervisor)
    reclaim = CacheReclaim(supervisor.reclaim_cache) if settings.reclaim_idle_cache else None
    images = ImageService(stores.images, registry, events, feed, stores.ballast)
    exec_service = ExecService(registry, stores.images, supervisor, events)
    files = FileService(registry, stores.images, supervisor, service_vms, events)
    services = Services(
        containers=containers,
        exec=exec_service,
        files=files,
        commits=CommitService(registry, stores.images, files, supervisor, events, feed),
        attach=AttachService(registry, attach_hub, stores.log_store),
        images=images,
        registries=RegistryService(stores.images, registry_options(settings), events, feed),
        logs=LogService(stores.log_store, hub, containers),
        events=events,
        hosts=_make_hosts(
            settings, machine, stores, facts, accelerator, registry, supervisor, templates, pool
        ),
        health=HealthService(registry, stores.images, exec_service, feed),
        limits=LimitService(registry, stores.images, admission, supervisor),
        processes=ProcessService(registry, supervisor),
        stats=StatsService(supervisor.samplers, cache_reclaim=reclaim),
        upkeep=UpkeepService(containers, images, events),
        accounts=AccountService(stores.database),
        feed=feed,
    )
    return services, _Workers(supervisor, templates, pool)


def registry_options(settings: Settings) -> RegistryOptions:
    """How the settings say that registries are reached.

    Raises:
        InvalidArgument: A mirror or an insecure registry is malformed.
    """
    return RegistryOptions(
        mirrors=parse_mirrors(settings.registry_mirrors),
        insecure=parse_insecure(settings.registry_insecure),
        ca=Path(settings.registry_ca).expanduser() if settings.registry_ca else None,
        downloads=DOWNLOADS,
    )


def _make_admission(settings: Settings, facts: HostFacts) -> Admission:
    return Admission(
        default_memory_bytes=settings.default_memory_bytes,
        default_vcpus=settings.default_vcpus,
        reserve_bytes=settings.memory_reserve_bytes,
        host_cpus=facts.cpus,
    )


def _make_shelf(
    settings: Settings, machine: Machine, facts: HostFacts, events: EventService
) -> TemplateShelf:
    return TemplateShelf(
        machine.hypervisor,
        machine.guest,
        boot_timeout_s=settings.boot_timeout_s,
        on_failure=lambda view: _tell_template_failed(events, view),
        usual_vcpus=settings.default_vcpus or min(facts.cpus, 2),
        is_off=not settings.templates,
    )


def _make_pool(
    settings: Settings,
    machine: Machine,
    stores: _Stores,
    facts: HostFacts,
    admission: Admission,
    templates: TemplateShelf,
    demand: Demand,
    events: EventService,
) -> WarmPool:
    warmer = Warmer(
        hypervisor=machine.hypervisor,
        guest=machine.guest,
        scratch=stores.scratch,
        size=admission.size(ContainerConfig(image=""), layer_count=1),
        scratch_size_bytes=settings.scratch_size_bytes,
        spill_bytes=settings.log_spill_bytes,
        connect_timeout_s=settings.boot_timeout_s,
    )
    has_templates = settings.templates and machine.hypervisor.capabilities.snapshot
    wanted = settings.pool_size if has_templates else "0"
    return WarmPool(
        warmer,
        templates,
        admission,
        demand,
        size=None if wanted == "auto" else int(wanted),
        host_cpus=facts.cpus,
        on_failure=lambda error: _tell_pool_failed(events, error),
    )


def _make_launcher(
    settings: Settings,
    machine: Machine,
    stores: _Stores,
    facts: HostFacts,
    admission: Admission,
    templates: TemplateShelf,
    pool: WarmPool,
    demand: Demand,
) -> Launcher:
    return Launcher(
        hypervisor=machine.hypervisor,
        guest=machine.guest,
        images=stores.images,
        scratch=stores.scratch,
        admission=admission,
        templates=templates,
        pool=pool,
        demand=demand,
        host_cpus=facts.cpus,
        scratch_size_bytes=settings.scratch_size_bytes,
        spill_bytes=settings.log_spill_bytes,
    )


def _make_service_vms(
    settings: Settings,
    machine: Machine,
    stores: _Stores,
    facts: HostFacts,
    templates: TemplateShelf,
) -> ServiceVms:
    return ServiceVms(
        hypervisor=machine.hypervisor,
        guest=machine.guest,
        images=stores.images,
        scratch=stores.scratch,
        templates=templates,
        vcpus=settings.default_vcpus or min(facts.cpus, 2),
        scratch_size_bytes=settings.scratch_size_bytes,
        boot_timeout_s=settings.boot_timeout_s,
    )


def _make_hosts(
    settings: Settings,
    machine: Machine,
    stores: _Stores,
    facts: HostFacts,
    accelerator: Accelerator,
    registry: ContainerRegistry,
    supervisor: Supervisor,
    templates: TemplateShelf,
    pool: WarmPool,
) -> HostService:
    return HostService(
        facts=facts,
        data_dir=settings.data_dir,
        hypervisor=machine.hypervisor.name,
        hypervisor_version=machine.hypervisor_version,
        accelerator=accelerator,
        guest_kernel=machine.guest.kernel_version,
        guest_build_key=machine.guest.key,
        registry=registry,
        images=stores.images,
        supervisor=supervisor,
        templates=templates,
        pool=None if pool.is_off else pool,
        docker_tcp=settings.docker_tcp,
    )


async def _open_stores(settings: Settings, stack: AsyncExitStack) -> _Stores:
    data_dir = settings.data_dir
    database_path = data_dir / "slipway.db"
    await asyncio.to_thread(upgrade_database, database_path)
    database = Database(database_path)
    await database.open()
    stack.push_async_callback(database.close)
    log_faults: asyncio.Queue[str] = asyncio.Queue(KEPT_LOG_FAULTS)
    log_store = LogStore(data_dir / "logs", on_fault=lambda text: _keep(log_faults, text))
    await log_store.open()
    stack.push_async_callback(log_store.close)
    images = ImageStore(data_dir / "images")
    await images.open()
    stack.push_async_callback(images.close)
    if not images.list_images():
        await import_starter(images)
    consoles = ConsoleArchive(data_dir / "consoles")
    await consoles.open()
    scratch = ScratchDisks(data_dir / "scratch")
    ballast = Ballast(data_dir / "ballast")
    return _Stores(database, log_store, log_faults, images, scratch, consoles, ballast)


def _keep(log_faults: asyncio.Queue[str], text: str) -> None:
    """Keep a fault for the journal; beyond the bound the newest are in the engine's log only."""
    logger.error("Log store: %s", text)
    with contextlib.suppress(asyncio.QueueFull):
        log_faults.put_nowait(text)


@asynccontextmanager
async def _background(
    workers: _Workers, services: Services, stores: _Stores, settings: Settings
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


async def _keep_vms_ready(workers: _Workers, ready: asyncio.Event) -> None:
    """Begin with templates and pool once it is known which VMs of an earlier engine run."""
    await ready.wait()
    async with asyncio.TaskGroup() as group:
        group.create_task(workers.templates.run())
        group.create_task(workers.pool.run())


async def _tell_template_failed(events: EventService, view: TemplateView) -> None:
    """Write into the journal why starts boot, or did for a while."""
    attributes = {"error": view.reason, "vcpus": str(view.vcpus), "state": view.state.value}
    await _tell_of_host(events, "template-failed", attributes)


async def _tell_pool_failed(events: EventService, error: str) -> None:
    """Write into the journal why no VMs wait."""
    await _tell_of_host(events, "pool-failed", {"error": error})


async def _tell_of_host(events: EventService, action: str, attributes: dict[str, str]) -> None:
    try:
        await events.note(EventType.HOST, action, "local", "local", attributes=attributes)
    except SlipwayError as error:
        logger.warning("Event %s: %s", action, error.message)


async def _upkeep(services: Services, stores: _Stores, settings: Settings) -> None:
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


async def _tell_log_faults(services: Services, stores: _Stores) -> None:
    """Write what the log store met (a damaged day file set aside) into the journal."""
    while True:
        text = await stores.log_faults.get()
        await _tell_of_host(services.events, "log-fault", {"error": text})


async def _keep_ballast(ballast: Ballast) -> None:
    """Lay the ballast in again once what filled the disk is gone."""
    while True:
        await ballast.lay_in()
        await asyncio.sleep(BALLAST_INTERVAL_S)
