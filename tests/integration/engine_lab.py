"""A whole engine over the fake machine: real stores, database and image, scripted guests."""

import asyncio
import shutil
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from app.assembly import Machine
from app.domain.container import Container, ContainerState
from app.domain.container_config import ContainerConfig
from app.engine import run_engine
from app.guest.fake import FakeGuest
from app.guest.fake_process import Program
from app.guest.fake_tree import FakeTree
from app.guest.image import GuestImage
from app.hypervisor.fake import FakeHypervisor
from app.hypervisor.fake_machine import FakeMachine
from app.hypervisor.port import VmSpec
from app.services.bundle import Services
from app.services.templates import TemplateState, TemplateView
from app.settings import Settings

DEADLINE_S = 15.0
POLL_S = 0.01  # of what nobody tells; without a pause threads and guests would starve
WHO = "tester"


class EngineLab:
    """One data directory and one fake machine; engines come and go over them."""

    def __init__(self, root: Path, prepared: Path) -> None:
        self.settings = Settings(data_dir=root / "data", memory_reserve_bytes=0)
        self.can_clone = False
        self.gates: dict[int, asyncio.Event] = {}  # an Op waits in every guest for its event
        self.hypervisor: FakeHypervisor | None = None  # the last engine's
        self.guests: dict[str, FakeGuest] = {}
        self.programs: dict[str, Program] = {}
        self.trees: dict[Path, FakeTree] = {}
        self.machine = FakeMachine(root / "vms", self._play)
        self._kernel = root / "vmlinux"
        self._kernel.write_bytes(b"kernel")
        shutil.copytree(prepared, self.settings.data_dir)

    async def _play(self, spec: VmSpec, reader: StreamReader, writer: StreamWriter) -> None:
        guest = self.guests.setdefault(spec.id, FakeGuest(programs=self.programs, gates=self.gates))
        # Files belong to the disk, and so to every VM that has it.
        scratch = next((disk.path for disk in spec.disks if not disk.read_only), None)
        if scratch is not None:
            guest.machine.tree = self.trees.setdefault(scratch, guest.machine.tree)
        await guest.serve(reader, writer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.machine.__aexit__()
        for guest in self.guests.values():
            await guest.close()

    def runner(self) -> Machine:
        """What an application runs its VMs by."""
        guest = GuestImage(
            kernel=self._kernel,
            initrd=self._kernel,
            cmdline="quiet",
            kernel_version="6.1.0-fake",
            key="fake",
            warm_up_layer=self._kernel,
        )
        self.hypervisor = FakeHypervisor(self.machine, can_clone=self.can_clone)
        return Machine(self.hypervisor, "1.0", guest)

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Services]:
        """Run an engine; leaving it is the engine's SIGTERM."""
        async with run_engine(self.settings, self.runner()) as services:
            yield services

    def guest_of(self, container: Container) -> FakeGuest:
        """The guest that plays the container's VM."""
        assert container.vm_id is not None
        return self.guests[container.vm_id]


def shell(script: str, **more: object) -> ContainerConfig:
    """A container of the starter image that runs a script."""
    return ContainerConfig(image="busybox", command=("sh", "-c", script), **more)  # type: ignore[arg-type]


async def launch(services: Services, config: ContainerConfig, name: str | None = None) -> Container:
    """Create and start."""
    container = await services.containers.create(config, name=name, initiator=WHO)
    await services.containers.start(container.id, initiator=WHO)
    return await services.containers.get(container.id)


async def until(
    services: Services, container_id: str, condition: Callable[[Container], bool]
) -> Container:
    """Wait for a state of the record, by the feed, with a deadline."""
    async with services.feed.subscribe() as changes, asyncio.timeout(DEADLINE_S):
        while True:
            container = await services.containers.get(container_id)
            if condition(container):
                return container
            await changes.next()


async def until_state(services: Services, container_id: str, state: ContainerState) -> Container:
    """Wait until the container is in `state`."""
    return await until(services, container_id, lambda container: container.state is state)


async def until_no_vm(services: Services) -> None:
    """Wait until the last VM is gone: an end is told before its VM is."""
    async with services.feed.subscribe() as changes, asyncio.timeout(DEADLINE_S):
        while await services.hosts.vms():
            await changes.next()


async def log_text(services: Services, container_id: str) -> list[str]:
    """All lines so far."""
    lines = await services.logs.read(container_id, from_seq=1, limit=1_000_000)
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
    return [line.text for line in lines]


async def until_template(services: Services, state: TemplateState) -> TemplateView:
    """Wait until a template is in that state."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            for view in (await services.hosts.host()).templates:
                if view.state is state:
                    return view
            await asyncio.sleep(POLL_S)


async def until_waiting(services: Services, count: int) -> None:
    """Wait until so many VMs of the pool can be claimed."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            pool = (await services.hosts.host()).pool
            assert pool is not None
            if pool.waiting == count:
                return
            await asyncio.sleep(POLL_S)


async def start_path(services: Services, container: Container) -> str:
    """By which path its last start went."""
    events = await services.events.list(actor_id=container.id, limit=100)
    return next(event.attributes["path"] for event in events if event.action == "start")
