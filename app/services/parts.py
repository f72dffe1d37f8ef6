"""The engine's parts that lives of containers work with; built once in `app.main`."""

from dataclasses import dataclass

from app.hypervisor.port import Hypervisor
from app.logs.follow import LogHub
from app.logs.store import LogStore
from app.services.attachments import AttachHub
from app.services.console import ConsoleArchive
from app.services.events import EventService
from app.services.launch import Launcher
from app.services.registry import ContainerRegistry
from app.services.service_vm import ServiceVms


@dataclass(frozen=True)
class EngineParts:
    """What a life needs; `accelerator` is the name of what runs guest instructions here."""

    hypervisor: Hypervisor
    launcher: Launcher
    registry: ContainerRegistry
    events: EventService
    log_store: LogStore
    log_hub: LogHub
    attach_hub: AttachHub
    consoles: ConsoleArchive
    service_vms: ServiceVms
    boot_timeout_s: float
    accelerator: str
