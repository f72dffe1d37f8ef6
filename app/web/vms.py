"""The micro-VMs: one row for each container that runs."""

import time
from dataclasses import dataclass
from typing import ClassVar

from fastapi import APIRouter, Request, Response

from app.domain.vm import VmRecord, VmState
from app.services.stats import ContainerSample
from app.web import formats
from app.web.errors import WebRoute
from app.web.sessions import SignedIn, services_of
from app.web.shell import Shell, build_shell
from app.web.states import Mark, hypervisor_name, vm_mark
from app.web.templating import render

router = APIRouter(route_class=WebRoute)


@dataclass(frozen=True)
class VmRow:
    """One VM."""

    id: str
    mark: Mark
    container_name: str
    container_href: str
    vcpus: int
    memory: str
    resident: str
    used: str
    cache: str
    kernel: str
    overhead: str
    template_share: str
    hypervisor: str
    pid: str
    start: str
    up: str
    heard: str


@dataclass(frozen=True)
class VmsPage:
    """Context of the list."""

    template: ClassVar[str] = "vms.html"
    shell: Shell
    rows: tuple[VmRow, ...]
    accelerator_reason: str


def vm_row(vm: VmRecord, container_name: str, sample: ContainerSample | None, now_ns: int) -> VmRow:
    """A VM as a table row."""
    heard = formats.age(vm.last_heard_at_ns, now_ns) if vm.last_heard_at_ns else ""
    return VmRow(
        id=vm.id[:12],
        mark=vm_mark(vm),
        container_name=container_name or vm.container_id[:12],
        container_href=f"/containers/{vm.container_id[:12]}",
        vcpus=vm.vcpus,
        memory=formats.size(vm.memory_bytes),
        resident=_size(vm.host_resident_bytes),
        used=_size(sample.memory_anon_bytes if sample else None),
        cache=_size(sample.memory_file_bytes if sample else None),
        kernel=_size(sample.guest_kernel_bytes if sample else None),
        overhead=_size(sample.vmm_overhead_bytes if sample else None),
        template_share=_size(vm.host_template_bytes),
        hypervisor=f"{hypervisor_name(vm.hypervisor)}/{vm.accelerator.upper()}",
        pid="–" if vm.pid is None else str(vm.pid),
        start=_start(vm),
        up=formats.age(vm.started_at_ns, now_ns),
        heard=f"{heard} ago" if heard else "–",
    )


def _start(vm: VmRecord) -> str:
    total_ms = sum(stage.duration_ms for stage in vm.boot_stages)
    if not total_ms:
        return "–"
    text = formats.milliseconds(total_ms)
    return text if vm.start_path is None else f"{vm.start_path} {text}"


def _size(size_bytes: int | None) -> str:
    return "–" if size_bytes is None else formats.size(size_bytes)


@router.get("/vms")
async def vms_page(request: Request, viewer: SignedIn) -> Response:
    """The page."""
    services = services_of(request)
    containers = await services.containers.list()
    names = {one.id: one.name for one in containers}
    now_ns = time.time_ns()
    page = VmsPage(
        shell=await build_shell(request, viewer, "vms", containers=containers),
        rows=tuple(
            vm_row(
                vm,
                names.get(vm.container_id, ""),
                services.stats.latest(vm.container_id),
                now_ns,
            )
            for vm in await services.hosts.vms()
            if vm.state is not VmState.OFF
        ),
        accelerator_reason=(await services.hosts.host()).accelerator.reason,
    )
    return render(request, page)
