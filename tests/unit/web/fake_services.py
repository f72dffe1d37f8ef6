"""The services in memory, by the domain's own rules: what the dashboard is tested with."""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from app.core.errors import (
    Conflict,
    InvalidFields,
    NotFound,
    ResourceExhausted,
    TooManyRequests,
    Unauthenticated,
)
from app.core.ids import new_container_id, new_vm_id
from app.core.units import GIB, MIB
from app.domain import container as rules
from app.domain.container import Container
from app.domain.container_checks import check_config, check_name
from app.domain.container_config import ContainerConfig, plan_process
from app.domain.event import Event, EventType
from app.domain.sizing import LaunchPlan, plan_launch, size_vm
from app.domain.vm import Accelerator, BootStage, StartPath, VmRecord, VmState

if TYPE_CHECKING:
    from app.services.bundle import Services
from app.services.feed import ChangeFeed
from app.services.hosts import HostView
from app.services.pool import PoolView
from app.services.templates import TemplateState, TemplateView
from tests.unit.web.fake_stores import FakeEvents, FakeImages, FakeLogs, FakeStats, now_ns

STAGES = (
    BootStage("kernel", 1210.0),
    BootStage("agent", 310.0),
    BootStage("disks", 64.0),
    BootStage("process", 92.0),
)
ADMIN = ("admin", "correct horse battery")


class FakeContainers:
    """As ContainerService: starts and stops at once, by the domain's rules."""

    def __init__(self, feed: ChangeFeed, events: FakeEvents, images: FakeImages) -> None:
        self._feed, self._events, self._images = feed, events, images
        self.all: dict[str, Container] = {}
        self.refuse_start: ResourceExhausted | None = None
        self.boot_gate: asyncio.Event | None = None

    def put(self, container: Container) -> Container:
        """Store a record and tell the viewers."""
        self.all[container.id] = container
        self._feed.container_changed(container.id, vm_id=container.vm_id)
        return container

    def _change(self, container: Container, action: str, initiator: str, **facts: str) -> None:
        self.put(container)
        self._events.record(
            Event(
                EventType.CONTAINER,
                action,
                container.id,
                container.name,
                now_ns(),
                initiator,
                facts,
            )
        )

    async def list(self, *, all: bool = True) -> Sequence[Container]:
        newest = sorted(self.all.values(), key=lambda one: one.created_at_ns, reverse=True)
        return [one for one in newest if all or one.is_live]

    async def get(self, reference: str) -> Container:
        for one in self.all.values():
            if reference == one.name or (reference and one.id.startswith(reference)):
                return one
        raise NotFound(f"No such container: {reference}")

    async def plan(self, config: ContainerConfig) -> LaunchPlan:
        size = size_vm(
            config, default_memory_bytes=GIB, default_vcpus=2, host_cpus=4, layer_count=1
        )
        return plan_launch(size, host_available_bytes=11 * GIB, reserve_bytes=512 * MIB)

    async def create(
        self, config: ContainerConfig, *, name: str | None = None, initiator: str
    ) -> Container:
        check_config(config)
        image = self._images.find(config.image)
        plan_process(config, image.config, hostname="")
        chosen = check_name(name) if name else f"brisk_ketch{len(self.all)}"
        if any(one.name == chosen for one in self.all.values()):
            raise Conflict(f"Conflict. The container name {chosen!r} is already in use")
        made = Container(new_container_id(), chosen, image.id, config, now_ns())
        self._change(made, "create", initiator)
        return made

    async def start(self, reference: str, *, initiator: str) -> None:
        claimed = rules.begin_start(await self.get(reference))
        if self.refuse_start is not None:
            raise self.refuse_start
        self.put(replace(claimed, vm_id=new_vm_id()))
        if self.boot_gate is not None:
            await self.boot_gate.wait()
        running = await self.get(claimed.id)
        self._change(
            rules.started(running, pid=1, at_ns=now_ns(), boot_stages=STAGES), "start", initiator
        )

    async def stop(self, reference: str, *, timeout_s: int | None = None, initiator: str) -> None:
        claimed = rules.begin_stop(await self.get(reference))
        self._change(claimed, "stop", initiator)
        self._end(claimed, 143)

    def _end(self, container: Container, exit_code: int) -> None:
        ended = rules.ended(container, exit_code=exit_code, at_ns=now_ns())
        self._change(ended, "die", "engine", exitCode=str(exit_code))

    async def kill(self, reference: str, *, signal: str = "SIGKILL", initiator: str) -> None:
        container = await self.get(reference)
        rules.require_running(container, "kill")
        self._change(replace(container, stopped_by_user=True), "kill", initiator, signal=signal)
        if signal == "SIGKILL":
            self._end(await self.get(container.id), 137)

    async def restart(
        self, reference: str, *, timeout_s: int | None = None, initiator: str
    ) -> None:
        await self.stop(reference, initiator=initiator)
        await self.start(reference, initiator=initiator)

    async def pause(self, reference: str, *, initiator: str) -> None:
        container = await self.get(reference)
        rules.require_running(container, "pause")
        self._change(rules.paused(container), "pause", initiator)

    async def unpause(self, reference: str, *, initiator: str) -> None:
        container = await self.get(reference)
        rules.require_paused(container)
        self._change(rules.unpaused(container), "unpause", initiator)

    async def rename(self, reference: str, new_name: str, *, initiator: str) -> Container:
        container = await self.get(reference)
        renamed = replace(container, name=check_name(new_name))
        self._change(renamed, "rename", initiator, oldName=container.name)
        return renamed

    async def remove(self, reference: str, *, force: bool = False, initiator: str) -> None:
        container = await self.get(reference)
        if not force:
            rules.begin_remove(container)
        del self.all[container.id]
        self._feed.container_changed(container.id)


@dataclass
class FakeSession:
    token: str
    user_name: str
    csrf_token: str
    expires_at_ns: int


@dataclass
class FakeAccounts:
    """As AccountService, with one setup link and a throttle after three failures."""

    users: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, FakeSession] = field(default_factory=dict)
    setup_token: str = "setup-token"
    failures: int = 0

    async def setup_required(self) -> bool:
        return not self.users

    async def create_first_admin(self, token: str, name: str, password: str) -> FakeSession:
        if token != self.setup_token or self.users:
            raise Unauthenticated("This link is not valid", advice="Start the engine again.")
        if len(password) < 10:
            raise InvalidFields({"password": "A password has at least 10 characters"})
        self.users[name] = password
        return self._session(name)

    async def sign_in(self, name: str, password: str, *, client: str) -> FakeSession:
        if self.failures >= 3:
            raise TooManyRequests("Too many attempts", retry_after_s=42)
        if self.users.get(name) != password:
            self.failures += 1
            raise Unauthenticated("Name or password is wrong")
        return self._session(name)

    def _session(self, name: str) -> FakeSession:
        expires_at_ns = now_ns() + 3600 * 10**9
        session = FakeSession(secrets.token_hex(16), name, secrets.token_hex(16), expires_at_ns)
        self.sessions[session.token] = session
        return session

    async def sign_out(self, token: str) -> None:
        self.sessions.pop(token, None)

    async def authenticate_session(self, token: str) -> FakeSession | None:
        return self.sessions.get(token)


class FakeHosts:
    """As HostService."""

    def __init__(self, containers: FakeContainers, images: FakeImages) -> None:
        self._containers, self._images = containers, images
        self.memory_available_bytes = 11 * GIB
        self.pool: PoolView | None = PoolView(3, 4, resident_bytes=123 * MIB)
        self.start_path: StartPath | None = StartPath.POOL

    async def host(self) -> HostView:
        containers = await self._containers.list()
        return HostView(
            name="harbor-01",
            os="Debian GNU/Linux 12 (bookworm)",
            kernel="6.1.0-26-amd64",
            cpu_model="AMD EPYC 7763",
            cpus=4,
            memory_total_bytes=16 * GIB,
            memory_available_bytes=self.memory_available_bytes,
            disk_total_bytes=200 * GIB,
            disk_free_bytes=151 * GIB,
            data_dir="/var/lib/slipway",
            hypervisor="qemu",
            hypervisor_version="7.2.19",
            accelerator=Accelerator("tcg", "KVM opened and the guest did not boot on it.", 1950.0),
            guest_kernel="6.1.0-26",
            guest_build_key="7be1f00d" * 8,
            slipway_version="0.1.0",
            started_at_ns=now_ns() - 3_700 * 10**9,
            containers_running=sum(one.is_live for one in containers),
            containers_total=len(containers),
            images_total=len(self._images.all),
            templates=(TemplateView(2, TemplateState.READY, memory_used_bytes=99 * MIB),),
            pool=self.pool,
        )

    async def vms(self) -> list[VmRecord]:
        return [
            VmRecord(
                id=one.vm_id,
                container_id=one.id,
                state=VmState.UNRESPONSIVE if one.unresponsive_since_ns else VmState.READY,
                vcpus=2,
                memory_bytes=GIB,
                hypervisor="qemu",
                accelerator="tcg",
                pid=4711,
                started_at_ns=one.started_at_ns or now_ns(),
                boot_stages=one.boot_stages,
                start_path=self.start_path,
                last_heard_at_ns=now_ns() - 10**9,
                host_resident_bytes=141 * MIB,
                host_template_bytes=4 * MIB,
            )
            for one in await self._containers.list()
            if one.vm_id is not None
        ]


class Fakes:
    """All fakes wired together; `services` is what the application gets."""

    def __init__(self) -> None:
        self.feed = ChangeFeed()
        self.events = FakeEvents(self.feed)
        self.images = FakeImages(self.feed)
        self.containers = FakeContainers(self.feed, self.events, self.images)
        self.logs = FakeLogs()
        self.stats = FakeStats()
        self.accounts = FakeAccounts()
        self.hosts = FakeHosts(self.containers, self.images)
        self.services = cast(
            "Services",
            SimpleNamespace(
                containers=self.containers,
                images=self.images,
                logs=self.logs,
                events=self.events,
                stats=self.stats,
                accounts=self.accounts,
                hosts=self.hosts,
                feed=self.feed,
            ),
        )

    async def launch(self, name: str, **config: object) -> Container:
        """A running container."""
        image = str(config.pop("image", "busybox:latest"))
        made = await self.containers.create(
            ContainerConfig(image=image, **config),  # type: ignore[arg-type]
            name=name,
            initiator="admin",
        )
        await self.containers.start(made.id, initiator="admin")
        return await self.containers.get(made.id)
