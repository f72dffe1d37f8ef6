"""/api/v1/hosts and /api/v1/vms."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from app.api.identity import Initiator, ServicesOf
from app.api.problems import responses
from app.api.schemas import BootStageView, moment
from app.core.errors import NotFound
from app.domain.vm import StartPath, VmRecord, VmState
from app.services.hosts import HostView
from app.services.templates import TemplateState

router = APIRouter()


class VmView(BaseModel):
    """A micro-VM."""

    id: str
    container_id: str
    state: VmState
    vcpus: int
    memory_bytes: int
    hypervisor: str
    accelerator: str
    pid: int | None
    started: datetime | None
    last_heard: datetime | None
    start_path: StartPath | None
    host_resident_bytes: int | None
    host_template_bytes: int | None
    boot_stages: list[BootStageView]

    @classmethod
    def of(cls, vm: VmRecord) -> Self:
        """From the engine's view."""
        return cls(
            id=vm.id,
            container_id=vm.container_id,
            state=vm.state,
            vcpus=vm.vcpus,
            memory_bytes=vm.memory_bytes,
            hypervisor=vm.hypervisor,
            accelerator=vm.accelerator,
            pid=vm.pid,
            started=moment(vm.started_at_ns),
            last_heard=moment(vm.last_heard_at_ns),
            start_path=vm.start_path,
            host_resident_bytes=vm.host_resident_bytes,
            host_template_bytes=vm.host_template_bytes,
            boot_stages=[
                BootStageView(name=stage.name, duration_ms=stage.duration_ms)
                for stage in vm.boot_stages
            ],
        )


class TemplateDocument(BaseModel):
    """A saved VM that starts are cloned from; while there is none they boot a kernel."""

    vcpus: int
    state: TemplateState
    reason: str = Field(description="Why it failed, or is made again; empty otherwise.")
    memory_used_bytes: int = Field(description="Host memory that all its clones share.")


class PoolDocument(BaseModel):
    """VMs that have gone through a whole start once and wait for containers.

    They are no containers' VMs: `/vms` does not list them.
    """

    waiting: int = Field(description="How many can be taken at this moment.")
    size: int = Field(description="How many shall wait, by the setting or by recent demand.")
    reason: str = Field(description="Why fewer wait than shall; empty while all is well.")
    resident_bytes: int = Field(description="Host memory that the waiting ones hold (PSS).")


class HostDocument(BaseModel):
    """A host; this release has the one that the engine runs on, `local`."""

    id: str = "local"
    name: str
    os: str
    kernel: str
    cpu_model: str
    cpus: int
    memory_total_bytes: int
    memory_available_bytes: int
    disk_total_bytes: int
    disk_free_bytes: int
    hypervisor: str
    hypervisor_version: str
    accelerator: str = Field(examples=["tcg"])
    accelerator_reason: str
    accelerator_boot_ms: float | None
    guest_kernel: str
    slipway_version: str
    started: datetime | None
    containers_running: int
    containers_total: int
    images_total: int
    templates: list[TemplateDocument]
    pool: PoolDocument | None = Field(description="Null while the pool is off.")

    @classmethod
    def of(cls, host: HostView) -> Self:
        """From the service's view; paths of the host are not told."""
        names = set(cls.model_fields) - {
            "id",
            "started",
            "accelerator",
            "accelerator_reason",
            "accelerator_boot_ms",
            "templates",
            "pool",
        }
        return cls(
            started=moment(host.started_at_ns),
            accelerator=host.accelerator.name,
            accelerator_reason=host.accelerator.reason,
            accelerator_boot_ms=host.accelerator.boot_ms,
            templates=[TemplateDocument(**asdict(view)) for view in host.templates],
            pool=PoolDocument(**asdict(host.pool)) if host.pool is not None else None,
            **{name: getattr(host, name) for name in names},
        )


@router.get("/hosts", summary="List hosts", tags=["hosts"])
async def list_hosts(services: ServicesOf, _: Initiator) -> list[HostDocument]:
    """This release has the one that the engine runs on."""
    return [HostDocument.of(await services.hosts.host())]


@router.get("/hosts/{host_id}", summary="Show a host", tags=["hosts"], responses=responses(404))
async def get_host(
    host_id: Annotated[str, Path(examples=["local"])], services: ServicesOf, _: Initiator
) -> HostDocument:
    """Its numbers now."""
    if host_id != "local":
        raise NotFound(f"No such host: {host_id}", advice="This release knows `local` only.")
    return HostDocument.of(await services.hosts.host())


@router.get("/vms", summary="List micro-VMs", tags=["vms"])
async def list_vms(services: ServicesOf, _: Initiator) -> list[VmView]:
    """One for each container that runs; those that wait in the pool are told with the host."""
    return [VmView.of(vm) for vm in await services.hosts.vms()]


@router.get("/vms/{vm_id}", summary="Show a micro-VM", tags=["vms"], responses=responses(404))
async def get_vm(
    vm_id: Annotated[str, Path(examples=["0a1b2c3d4e5f"])], services: ServicesOf, _: Initiator
) -> VmView:
    """Its state now."""
    for vm in await services.hosts.vms():
        if vm.id == vm_id:
            return VmView.of(vm)
    raise NotFound(f"No such VM: {vm_id}", advice="A VM exists only while its container runs.")
