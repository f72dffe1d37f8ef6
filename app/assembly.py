"""The parts of an engine, opened and connected; `engine` runs them."""

import asyncio
import contextlib
import logging
from contextlib import AsyncExitStack
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
from app.services.container_vms import ContainerVms
from app.services.containers import ContainerService
from app.services.demand import Demand
from app.services.events import EventService
from app.services.exec import ExecService
from app.services.feed import ChangeFeed
from app.services.files import FileService
from app.services.health import HealthService
from app.services.hosts import HostFacts, HostService
from app.services.images import ImageService
from app.services.launch import Launcher
from app.services.limits import LimitService
from app.services.logs import LogService
from app.services.parts import EngineParts
from app.services.pool import WarmPool
from app.services.processes import ProcessService
from app.services.registries import RegistryService
from app.services.registry import ContainerRegistry
from app.services.residency import Sampler
from app.services.service_vm import ServiceVms
from app.services.stats import StatsService
from app.services.supervisor import Supervisor
from app.services.templates import TemplateShelf, TemplateView
from app.services.upkeep import UpkeepService
from app.services.warm_vm import Warmer
from app.settings import Settings
from app.storage.ballast import Ballast
from app.storage.scratch import ScratchDisks

KEPT_LOG_FAULTS = 100

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Machine:
    """What runs VMs on this host: chosen by `app.main`, or by a test."""

    hypervisor: Hypervisor
    hypervisor_version: str
    guest: GuestImage


@dataclass(frozen=True)
class Stores:
    """Everything on disk, opened."""

    database: Database
    log_store: LogStore
    log_faults: asyncio.Queue[str]
    images: ImageStore
    scratch: ScratchDisks
    consoles: ConsoleArchive
    ballast: Ballast


@dataclass(frozen=True)
class Workers:
    """What has tasks of its own and is no service."""

    supervisor: Supervisor
    templates: TemplateShelf
    pool: WarmPool

    def memory_samplers(self) -> list[Sampler]:
        """How to measure what the host gives each VM, containers' and waiting ones."""
        return [*self.supervisor.memory_samplers(), *self.pool.memory_samplers()]


@dataclass(frozen=True)
class Ground:
    """What all parts stand on."""

    settings: Settings
    machine: Machine
    stores: Stores
    facts: HostFacts
    accelerator: Accelerator

    @property
    def usual_vcpus(self) -> int:
        """Of a container that asks for none."""
        return self.settings.default_vcpus or min(self.facts.cpus, 2)


def assemble(ground: Ground) -> tuple[Services, Workers]:
    """Connect the parts; nothing runs yet.

    Raises:
        InvalidArgument: A setting is malformed.
    """
    settings, stores = ground.settings, ground.stores
    feed = ChangeFeed()
    events = EventService(stores.database, feed)
    registry = ContainerRegistry(stores.database, events, feed, stores.ballast)
    admission = Admission(
        default_memory_bytes=settings.default_memory_bytes,
        default_vcpus=settings.default_vcpus,
        reserve_bytes=settings.memory_reserve_bytes,
        host_cpus=ground.facts.cpus,
    )
    containers = ContainerService(
        registry=registry,
        images=stores.images,
        scratch=stores.scratch,
        consoles=stores.consoles,
        admission=admission,
        stop_grace_s=settings.stop_grace_s,
    )
    templates = _make_shelf(ground, events)
    demand = Demand()
    pool = _make_pool(ground, admission, templates, demand, events)
    parts = _make_parts(ground, registry, events, admission, templates, pool, demand)
    supervisor = Supervisor(parts, remove_ended=containers.remove_ended)
    containers.bind(supervisor)
    workers = Workers(supervisor, templates, pool)
    return _make_services(ground, parts, workers, containers, admission, feed), workers


def _make_services(
    ground: Ground,
    parts: EngineParts,
    workers: Workers,
    containers: ContainerService,
    admission: Admission,
    feed: ChangeFeed,
) -> Services:
    stores, registry, events = ground.stores, parts.registry, parts.events
    supervisor = workers.supervisor
    reclaims = ground.settings.reclaim_idle_cache
    images = ImageService(stores.images, registry, events, feed, stores.ballast)
    exec_service = ExecService(registry, stores.images, supervisor, events)
    files = FileService(registry, stores.images, supervisor, parts.service_vms, events)
    return Services(
        containers=containers,
        exec=exec_service,
        files=files,
        commits=CommitService(registry, stores.images, files, supervisor, events, feed),
        attach=AttachService(registry, parts.attach_hub, stores.log_store),
        images=images,
        registries=RegistryService(stores.images, _registry_options(ground), events, feed),
        logs=LogService(stores.log_store, parts.log_hub, containers),
        events=events,
        hosts=_make_hosts(ground, registry, workers),
        health=HealthService(registry, stores.images, exec_service, feed),
        limits=LimitService(registry, stores.images, admission, supervisor),
        processes=ProcessService(registry, supervisor),
        stats=StatsService(
            supervisor.samplers,
            cache_reclaim=CacheReclaim(supervisor.reclaim_cache) if reclaims else None,
        ),
        upkeep=UpkeepService(containers, images, events),
        accounts=AccountService(stores.database),
        feed=feed,
    )


def _registry_options(ground: Ground) -> RegistryOptions:
    settings = ground.settings
    return RegistryOptions(
        mirrors=parse_mirrors(settings.registry_mirrors),
        insecure=parse_insecure(settings.registry_insecure),
        ca=Path(settings.registry_ca).expanduser() if settings.registry_ca else None,
        downloads=DOWNLOADS,
    )


def _make_shelf(ground: Ground, events: EventService) -> TemplateShelf:
    return TemplateShelf(
        ground.machine.hypervisor,
        ground.machine.guest,
        boot_timeout_s=ground.settings.boot_timeout_s,
        on_failure=lambda view: _tell_template_failed(events, view),
        usual_vcpus=ground.usual_vcpus,
        is_off=not ground.settings.templates,
    )


def _make_pool(
    ground: Ground,
    admission: Admission,
    templates: TemplateShelf,
    demand: Demand,
    events: EventService,
) -> WarmPool:
    settings, hypervisor = ground.settings, ground.machine.hypervisor
    warmer = Warmer(
        hypervisor=hypervisor,
        guest=ground.machine.guest,
        scratch=ground.stores.scratch,
        size=admission.size(ContainerConfig(image=""), layer_count=1),
        scratch_size_bytes=settings.scratch_size_bytes,
        spill_bytes=settings.log_spill_bytes,
        connect_timeout_s=settings.boot_timeout_s,
    )
    has_templates = settings.templates and hypervisor.capabilities.snapshot
    wanted = settings.pool_size if has_templates else "0"
    return WarmPool(
        warmer,
        templates,
        admission,
        demand,
        size=None if wanted == "auto" else int(wanted),
        host_cpus=ground.facts.cpus,
        on_failure=lambda error: _tell_pool_failed(events, error),
    )


def _make_parts(
    ground: Ground,
    registry: ContainerRegistry,
    events: EventService,
    admission: Admission,
    templates: TemplateShelf,
    pool: WarmPool,
    demand: Demand,
) -> EngineParts:
    settings, stores = ground.settings, ground.stores
    vms = ContainerVms(
        hypervisor=ground.machine.hypervisor,
        guest=ground.machine.guest,
        images=stores.images,
        scratch=stores.scratch,
        templates=templates,
        host_cpus=ground.facts.cpus,
        scratch_size_bytes=settings.scratch_size_bytes,
    )
    return EngineParts(
        hypervisor=ground.machine.hypervisor,
        launcher=Launcher(
            vms=vms,
            images=stores.images,
            admission=admission,
            templates=templates,
            pool=pool,
            demand=demand,
            spill_bytes=settings.log_spill_bytes,
        ),
        registry=registry,
        events=events,
        log_store=stores.log_store,
        log_hub=LogHub(stores.log_store),
        attach_hub=AttachHub(),
        consoles=stores.consoles,
        service_vms=ServiceVms(
            vms=vms,
            images=stores.images,
            vcpus=ground.usual_vcpus,
            boot_timeout_s=settings.boot_timeout_s,
        ),
        boot_timeout_s=settings.boot_timeout_s,
        accelerator=ground.accelerator.name,
    )


def _make_hosts(ground: Ground, registry: ContainerRegistry, workers: Workers) -> HostService:
    machine = ground.machine
    return HostService(
        facts=ground.facts,
        data_dir=ground.settings.data_dir,
        hypervisor=machine.hypervisor.name,
        hypervisor_version=machine.hypervisor_version,
        accelerator=ground.accelerator,
        guest_kernel=machine.guest.kernel_version,
        guest_build_key=machine.guest.key,
        registry=registry,
        images=ground.stores.images,
        supervisor=workers.supervisor,
        templates=workers.templates,
        pool=None if workers.pool.is_off else workers.pool,
        docker_tcp=ground.settings.docker_tcp,
    )


async def open_stores(settings: Settings, stack: AsyncExitStack) -> Stores:
    """Open everything on disk; `stack` closes it.

    Raises:
        SlipwayError: A part can't be used; the message says which.
    """
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
    return Stores(database, log_store, log_faults, images, scratch, consoles, ballast)


def _keep(log_faults: asyncio.Queue[str], text: str) -> None:
    """Keep a fault for the journal; beyond the bound the newest are in the engine's log only."""
    logger.error("Log store: %s", text)
    with contextlib.suppress(asyncio.QueueFull):
        log_faults.put_nowait(text)


async def _tell_template_failed(events: EventService, view: TemplateView) -> None:
    """Write into the journal why starts boot, or did for a while."""
    attributes = {"error": view.reason, "vcpus": str(view.vcpus), "state": view.state.value}
    await tell_of_host(events, "template-failed", attributes)


async def _tell_pool_failed(events: EventService, error: str) -> None:
    """Write into the journal why no VMs wait."""
    await tell_of_host(events, "pool-failed", {"error": error})


async def tell_of_host(events: EventService, action: str, attributes: dict[str, str]) -> None:
    """Write into the journal what concerns no container; a failure is logged."""
    try:
        await events.note(EventType.HOST, action, "local", "local", attributes=attributes)
    except SlipwayError as error:
        logger.warning("Event %s: %s", action, error.message)
