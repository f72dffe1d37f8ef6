"""One container: header, boot, memory, log, boot console, inspect; and what can be done to it."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import JSONResponse, StreamingResponse

from app.core.errors import AlreadyInState, InvalidArgument
from app.domain.container import Container, ContainerState
from app.domain.vm import VmRecord
from app.web import formats
from app.web.boot import BootView, boot_view
from app.web.containers import answer, ask_before_removal
from app.web.errors import WebRoute
from app.web.forms import Form
from app.web.loglines import LINES_AT_ONCE, packed_lines, plain_line
from app.web.memory import MemoryView, memory_view
from app.web.sessions import Posted, SignedIn, Viewer, services_of
from app.web.shell import Flash, Shell, build_shell, local_path
from app.web.states import (
    Mark,
    container_mark,
    has_failed,
    isolation_text,
    start_path_text,
    vm_mark,
)
from app.web.templating import render

if TYPE_CHECKING:
    from app.services.bundle import Services

router = APIRouter(route_class=WebRoute, prefix="/containers")
HEAD_MACROS = "_macros/container.html"
DOWNLOAD_LINES = 1000


@dataclass(frozen=True)
class Fact:
    """A name and a value in the header; `href` makes the value a link."""

    name: str
    value: str
    href: str = ""
    is_code: bool = False


@dataclass(frozen=True)
class Notice:
    """Something the operator should know about this container now."""

    tone: str
    text: str
    advice: str


@dataclass(frozen=True)
class ContainerHead:
    """What changes with the container's state; the macro of the same name draws it."""

    id: str
    short_id: str
    name: str
    csrf_token: str
    state: str
    mark: Mark
    vm_mark: Mark
    isolation: str
    facts: tuple[Fact, ...]
    notices: tuple[Notice, ...]
    actions: frozenset[str]
    boot: BootView | None
    start_path: str
    memory: MemoryView | None


@dataclass(frozen=True)
class ContainerPage:
    """Context of the page; `tab` is "log", "console" or "inspect"."""

    template: ClassVar[str] = "container.html"
    shell: Shell
    head: ContainerHead
    tab: str
    lines_total: int
    console: str
    inspect: str


_UP_STATES = frozenset({ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.STOPPING})
_ACTIONS: dict[ContainerState, frozenset[str]] = {
    ContainerState.CREATED: frozenset({"start"}),
    ContainerState.STARTING: frozenset({"stop", "kill"}),
    ContainerState.RUNNING: frozenset({"stop", "restart", "pause", "kill"}),
    ContainerState.PAUSED: frozenset({"unpause", "stop", "kill"}),
    ContainerState.STOPPING: frozenset({"kill"}),
    ContainerState.RESTARTING: frozenset({"stop"}),
    ContainerState.EXITED: frozenset({"start"}),
    ContainerState.REMOVING: frozenset(),
    ContainerState.DEAD: frozenset(),
}


def _facts(container: Container, vm: VmRecord | None, guest_kernel: str, now_ns: int) -> list[Fact]:
    config = container.config
    facts = [
        Fact("Image", config.image, is_code=True),
        Fact("ID", container.short_id, is_code=True),
        Fact("Guest", f"Linux {guest_kernel}", is_code=True),
    ]
    if vm is not None:
        facts.append(Fact("VM", vm.id[:12], href=f"/vms#vm-{vm.id[:12]}", is_code=True))
        facts.append(Fact("vCPUs", str(vm.vcpus)))
    limit = formats.size(config.memory_bytes) if config.memory_bytes else "VM's size"
    facts.append(Fact("Memory limit", limit))
    if container.state in _UP_STATES and container.started_at_ns:
        facts.append(Fact("Up", formats.age(container.started_at_ns, now_ns)))
    elif container.finished_at_ns:
        facts.append(Fact("Ended", f"{formats.age(container.finished_at_ns, now_ns)} ago"))
    if container.finished_at_ns and not container.is_live:
        facts.append(Fact("Exit code", str(container.exit_code)))
    facts.append(Fact("Restart policy", str(config.restart_policy)))
    facts.append(Fact("Restarts", str(container.restart_count)))
    facts.append(Fact("Network", "none in this release"))
    return facts


def _notices(container: Container, now_ns: int) -> list[Notice]:
    notices: list[Notice] = []
    if container.unresponsive_since_ns is not None:
        seconds = formats.age(container.unresponsive_since_ns, now_ns)
        notices.append(
            Notice(
                "warn",
                f"The guest has been silent for {seconds}.",
                "Its VM is ended after 60 s of silence; the log shown is what had arrived.",
            )
        )
    if container.backpressure_since_ns is not None:
        seconds = formats.age(container.backpressure_since_ns, now_ns)
        notices.append(
            Notice(
                "warn",
                f"Its writes have been waiting for {seconds}.",
                "It prints faster than the log can be stored; nothing is dropped.",
            )
        )
    if container.oom_killed:
        notices.append(
            Notice(
                "bad",
                "It ran out of memory and was killed.",
                "Launch it with a higher memory limit.",
            )
        )
    if container.error:
        notices.append(Notice("bad" if has_failed(container) else "warn", container.error, ""))
    return notices


async def container_head(
    services: "Services", container: Container, csrf_token: str
) -> ContainerHead:
    """Collect the header."""
    now_ns = time.time_ns()
    vms = {vm.id: vm for vm in await services.hosts.vms()} if container.vm_id else {}
    vm = vms.get(container.vm_id or "")
    host = await services.hosts.host()
    accelerator = vm.accelerator if vm else host.accelerator.name
    sample = services.stats.latest(container.id) if container.is_live else None
    return ContainerHead(
        id=container.id,
        short_id=container.short_id,
        name=container.name,
        csrf_token=csrf_token,
        state=container.state.value,
        mark=container_mark(container),
        vm_mark=vm_mark(vm),
        isolation=isolation_text(host.hypervisor, accelerator),
        facts=tuple(_facts(container, vm, host.guest_kernel, now_ns)),
        notices=tuple(_notices(container, now_ns)),
        actions=_ACTIONS[container.state],
        boot=boot_view(container),
        start_path=start_path_text(vm.start_path or "") if vm else "",
        memory=memory_view(sample, container.config.memory_bytes) if sample else None,
    )


def inspect_text(container: Container) -> str:
    """The record as JSON, as the engine holds it."""
    return json.dumps(asdict(container), indent=2, ensure_ascii=False, default=str)


@router.get("/{ref}")
async def log_page(request: Request, ref: str, viewer: SignedIn) -> Response:
    """Header and live log."""
    return await _page(request, ref, viewer, "log")


@router.get("/{ref}/console")
async def console_page(request: Request, ref: str, viewer: SignedIn) -> Response:
    """Header and what the guest wrote to its serial console while booting."""
    return await _page(request, ref, viewer, "console")


@router.get("/{ref}/inspect")
async def inspect_page(request: Request, ref: str, viewer: SignedIn) -> Response:
    """Header and the record as JSON."""
    return await _page(request, ref, viewer, "inspect")


async def _page(request: Request, ref: str, viewer: Viewer, tab: str) -> Response:
    services = services_of(request)
    container = await services.containers.get(ref)
    console = b""
    if tab == "console":
        console = await services.logs.console(container.id)
    page = ContainerPage(
        shell=await build_shell(request, viewer, "containers"),
        head=await container_head(services, container, viewer.csrf_token),
        tab=tab,
        lines_total=await services.logs.last_seq(container.id),
        console=printable(console),
        inspect=inspect_text(container) if tab == "inspect" else "",
    )
    return render(request, page)


def printable(raw: bytes) -> str:
    """A serial console as text: carriage returns and control characters taken out."""
    text = raw.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char for char in text if char in "\n\t\x1b" or char.isprintable())


@router.get("/{ref}/log")
async def log_lines(
    request: Request,
    ref: str,
    _viewer: SignedIn,
    from_seq: Annotated[int, Query(ge=1)] = 1,
    limit: Annotated[int, Query(ge=1, le=LINES_AT_ONCE)] = 500,
) -> Response:
    """Stored lines from a sequence number on, for scrolling back and for gaps."""
    services = services_of(request)
    container = await services.containers.get(ref)
    lines = await services.logs.read(container.id, from_seq=from_seq, limit=limit)
    return JSONResponse({"lines": packed_lines(lines)})


@router.get("/{ref}/log.txt")
async def log_download(request: Request, ref: str, _viewer: SignedIn) -> Response:
    """The whole log as text: time, stream, line."""
    services = services_of(request)
    container = await services.containers.get(ref)
    last_seq = await services.logs.last_seq(container.id)

    async def chunks() -> AsyncIterator[bytes]:
        next_seq = 1
        while next_seq <= last_seq:
            lines = await services.logs.read(container.id, from_seq=next_seq, limit=DOWNLOAD_LINES)
            lines = [line for line in lines if line.seq <= last_seq]
            if not lines:
                return
            yield b"".join(plain_line(line) for line in lines)
            next_seq = lines[-1].seq + 1

    return StreamingResponse(
        chunks(),
        media_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{container.name}.log"'},
    )


@router.get("/{ref}/remove")
async def removal_question(request: Request, ref: str, viewer: SignedIn) -> Response:
    """What a removal would take away."""
    container = await services_of(request).containers.get(ref)
    return await ask_before_removal(request, viewer, [container.id], "/containers", leaves=True)


_Change = Callable[["Services", Container, Viewer, Form], Awaitable[str]]


async def _start(services: "Services", one: Container, viewer: Viewer, _form: Form) -> str:
    await services.containers.start(one.id, initiator=viewer.user_name)
    return f"Started {one.name}."


async def _stop(services: "Services", one: Container, viewer: Viewer, _form: Form) -> str:
    await services.containers.stop(one.id, initiator=viewer.user_name)
    return f"Stopped {one.name}."


async def _restart(services: "Services", one: Container, viewer: Viewer, _form: Form) -> str:
    await services.containers.restart(one.id, initiator=viewer.user_name)
    return f"Restarted {one.name}."


async def _kill(services: "Services", one: Container, viewer: Viewer, form: Form) -> str:
    signal = form.text("signal", "SIGKILL") or "SIGKILL"
    await services.containers.kill(one.id, signal=signal, initiator=viewer.user_name)
    return f"Sent {signal} to {one.name}."


async def _pause(services: "Services", one: Container, viewer: Viewer, _form: Form) -> str:
    await services.containers.pause(one.id, initiator=viewer.user_name)
    return f"Paused {one.name}."


async def _unpause(services: "Services", one: Container, viewer: Viewer, _form: Form) -> str:
    await services.containers.unpause(one.id, initiator=viewer.user_name)
    return f"Resumed {one.name}."


async def _rename(services: "Services", one: Container, viewer: Viewer, form: Form) -> str:
    new_name = form.text("name")
    await services.containers.rename(one.id, new_name, initiator=viewer.user_name)
    return f"Renamed {one.name} to {new_name}."


_CHANGES: dict[str, _Change] = {
    "start": _start,
    "stop": _stop,
    "restart": _restart,
    "kill": _kill,
    "pause": _pause,
    "unpause": _unpause,
    "rename": _rename,
}


@router.post("/{ref}/{verb}")
async def change(request: Request, ref: str, verb: str, viewer: SignedIn, form: Posted) -> Response:
    """Do one thing to the container; the page's live updates show its progress meanwhile."""
    services = services_of(request)
    if verb not in _CHANGES:
        raise InvalidArgument(f"A container can't be {verb!r}-ed here")
    container = await services.containers.get(ref)
    back = local_path(form.text("next"), f"/containers/{container.short_id}")
    try:
        done = await _CHANGES[verb](services, container, viewer, form)
    except AlreadyInState as error:
        return answer(request, Flash("warn", f"{error.message}. Nothing was changed."), back)
    return answer(request, Flash("ok", done), back)
