"""Everything the faces may call, in one value; built in `app.main`, carried by the lifespan."""

from dataclasses import dataclass

from app.services.accounts import AccountService
from app.services.attach import AttachService
from app.services.commits import CommitService
from app.services.containers import ContainerService
from app.services.events import EventService
from app.services.exec import ExecService
from app.services.feed import ChangeFeed
from app.services.files import FileService
from app.services.health import HealthService
from app.services.hosts import HostService
from app.services.images import ImageService
from app.services.limits import LimitService
from app.services.logs import LogService
from app.services.processes import ProcessService
from app.services.registries import RegistryService
from app.services.stats import StatsService
from app.services.upkeep import UpkeepService


@dataclass(frozen=True)
class Services:
    """The use cases."""

    containers: ContainerService
    exec: ExecService
    files: FileService
    commits: CommitService
    attach: AttachService
    images: ImageService
    registries: RegistryService
    logs: LogService
    events: EventService
    hosts: HostService
    limits: LimitService
    health: HealthService
    processes: ProcessService
    stats: StatsService
    upkeep: UpkeepService
    accounts: AccountService
    feed: ChangeFeed
