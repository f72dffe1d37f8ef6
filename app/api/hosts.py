"""/api/v1/hosts and /api/v1/vms."""

from typing import Annotated

from fastapi import APIRouter, Path

from app.api.identity import Initiator, ServicesOf
from app.api.problems import responses
from app.api.schemas import HostDocument, VmView
from app.core.errors import NotFound

router = APIRouter()


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
    """One for each container that runs."""
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
