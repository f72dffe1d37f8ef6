"""The first page: how many run, what needs somebody, where memory goes, what just happened."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fastapi import APIRouter, Request, Response

from app.core.units import GIB
from app.domain.container import Container
from app.services.stats import ContainerSample
from app.web import formats
from app.web.containers import latest_samples
from app.web.errors import WebRoute
from app.web.eventlog import EventRow, event_row
from app.web.memory import Part, host_split
from app.web.sessions import SignedIn, services_of
from app.web.shell import Shell, build_shell
from app.web.states import Group, Mark, container_mark, group_of, has_failed, isolation_text
from app.web.templating import render

if TYPE_CHECKING:
    from app.services.hosts import HostView
    from app.services.pool import PoolView

router = APIRouter(route_class=WebRoute)
EVENTS_SHOWN = 8
ATTENTION_SHOWN = 20
LITTLE_DISK_SHARE = 0.1
LITTLE_MEMORY_BYTES = GIB


@dataclass(frozen=True)
class Attention:
    """One thing that somebody should look at."""

    mark: Mark
    name: str
    href: str
    reason: str
    since: str


@dataclass(frozen=True)
class Counts:
    """The facts line."""

    total: int
    running: int
    changing: int
    failed: int


@dataclass(frozen=True)
class HostLine:
    """The host as a row."""

    view: "HostView"
    isolation: str
    uptime: str
    cpu: str
    parts: tuple[Part, ...]
    used_bytes: int
    isolation_bytes: int
    template_bytes: int
    pool: str


@dataclass(frozen=True)
class OverviewPage:
    """Context of the overview."""

    template: ClassVar[str] = "overview.html"
    shell: Shell
    counts: Counts
    attention: tuple[Attention, ...]
    attention_total: int
    host: HostLine
    events: tuple[EventRow, ...]
    last_event_id: int


def count_groups(containers: Sequence[Container]) -> Counts:
    """Numbers of the facts line."""
    groups = [group_of(one) for one in containers]
    return Counts(
        len(groups),
        groups.count(Group.RUNNING),
        groups.count(Group.CHANGING),
        groups.count(Group.FAILED),
    )


def attention_of(containers: Sequence[Container], host: "HostView", now_ns: int) -> list[Attention]:
    """Problems: the host's own, silent guests, blocked writers, then failures, newest first."""
    problems = _host_problems(host)
    failures: list[tuple[int, Attention]] = []
    for one in containers:
        href = f"/containers/{one.short_id}"
        if one.unresponsive_since_ns is not None:
            since = formats.age(one.unresponsive_since_ns, now_ns)
            mark = Mark("vlost", "warn", "Guest silent", is_vm=True)
            problems.append(Attention(mark, one.name, href, "no word from the guest", since))
        if one.backpressure_since_ns is not None:
            since = formats.age(one.backpressure_since_ns, now_ns)
            reason = "its writes wait until the log is stored, or an attached client reads"
            problems.append(
                Attention(Mark("hold", "warn", "Blocked"), one.name, href, reason, since)
            )
        if has_failed(one):
            ended_ns = one.finished_at_ns or one.created_at_ns
            attention = Attention(
                container_mark(one), one.name, href, _reason(one), formats.age(ended_ns, now_ns)
            )
            failures.append((ended_ns, attention))
    failures.sort(key=lambda pair: pair[0], reverse=True)
    return problems + [attention for _, attention in failures]


def _reason(container: Container) -> str:
    if container.error:
        return container.error
    if container.oom_killed:
        limit_bytes = container.config.memory_bytes
        return f"out of memory at {formats.size(limit_bytes)}" if limit_bytes else "out of memory"
    retries = container.config.restart_policy.maximum_retries
    if retries and container.restart_count >= retries:
        return f"ended with {container.exit_code}, {retries} of {retries} restarts used"
    return f"ended with exit code {container.exit_code}"


def _host_problems(host: "HostView") -> list[Attention]:
    problems: list[Attention] = []
    warn = Mark("warn", "warn", "Little disk")
    if host.disk_free_bytes < host.disk_total_bytes * LITTLE_DISK_SHARE:
        reason = f"{formats.size(host.disk_free_bytes)} free in {host.data_dir}"
        problems.append(Attention(warn, host.name, "/host", reason, ""))
    if host.memory_available_bytes < LITTLE_MEMORY_BYTES:
        mark = Mark("warn", "warn", "Little memory")
        reason = f"{formats.size(host.memory_available_bytes)} available; starts may be refused"
        problems.append(Attention(mark, host.name, "/host", reason, ""))
    if host.docker_tcp:
        mark = Mark("bad", "bad", "Docker API open")
        reason = f"{host.docker_tcp} asks for no certificate: every local user owns the engine"
        problems.append(Attention(mark, host.name, "/host", reason, ""))
    return problems


@router.get("/")
async def overview(request: Request, viewer: SignedIn) -> Response:
    """The page."""
    services = services_of(request)
    containers = await services.containers.list()
    host = await services.hosts.host()
    now_ns = time.time_ns()
    samples = latest_samples(services, containers)
    attention = attention_of(containers, host, now_ns)
    events = await services.events.list(limit=EVENTS_SHOWN)
    page = OverviewPage(
        shell=await build_shell(request, viewer, "overview", containers=containers),
        counts=count_groups(containers),
        attention=tuple(attention[:ATTENTION_SHOWN]),
        attention_total=len(attention),
        host=host_line(host, list(samples.values()), now_ns),
        events=tuple(event_row(event) for event in events),
        last_event_id=events[0].id if events else 0,
    )
    return render(request, page)


def host_line(host: "HostView", samples: Sequence[ContainerSample], now_ns: int) -> HostLine:
    """Sum up the VMs' samples for the host's row."""
    parts = host_split(
        samples,
        total_bytes=host.memory_total_bytes,
        available_bytes=host.memory_available_bytes,
    )
    by_class = {part.css_class: part.size_bytes for part in parts}
    return HostLine(
        view=host,
        isolation=isolation_text(host.hypervisor, host.accelerator.name),
        uptime=formats.age(host.started_at_ns, now_ns),
        cpu=formats.percent(sum(one.cpu_percent for one in samples) / max(host.cpus, 1)),
        parts=parts,
        used_bytes=max(host.memory_total_bytes - host.memory_available_bytes, 0),
        isolation_bytes=by_class["f-kern"] + by_class["f-vmm"],
        template_bytes=sum(one.host_template_bytes or 0 for one in samples),
        pool=pool_text(host.pool),
    )


def pool_text(pool: "PoolView | None") -> str:
    """How many VMs wait warmed, and why not all."""
    if pool is None:
        return "off: no VM waits, each start makes its own"
    text = f"{pool.waiting} of {pool.size} warmed VMs wait"
    if pool.resident_bytes:
        text += f" and hold {formats.size(pool.resident_bytes)}"
    if pool.waiting >= pool.size:
        return text
    return f"{text}: {pool.reason or 'more are being made'}"
