"""Fixtures: the agent as a process, and in a VM that is shared by all tests."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.guest.image import GuestImage, build_guest
from tests.integration.agent_driver import AgentHost
from tests.integration.agent_lab import (
    AGENT_SOURCE,
    SCRATCH_DISKS,
    AgentVm,
    Disk,
    Machines,
    NativeAgent,
    guest_cache,
    make_agent,
    make_base_layer,
    make_scratch,
    require,
)


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent built as an ordinary process."""
    return make_agent(tmp_path_factory.mktemp("agent"))


@pytest.fixture
def agent(binary: Path, tmp_path: Path) -> Iterator[NativeAgent]:
    """A running agent with a connected host."""
    agent = NativeAgent(binary, tmp_path)
    try:
        agent.host.open()
        yield agent
    finally:
        agent.close()


@pytest.fixture
def host(agent: NativeAgent) -> AgentHost:
    """The connected host."""
    return agent.host


@pytest.fixture(scope="session")
def guest_image(tmp_path_factory: pytest.TempPathFactory) -> GuestImage:
    """The shipped guest, built from its LinuxKit file and the agent's sources."""
    require("gcc", "make", "apt-get", "dpkg-deb")
    return asyncio.run(
        build_guest(
            AGENT_SOURCE.parent / "slipway.yml",
            cache_dir=guest_cache(tmp_path_factory.mktemp("guest-cache")),
            agent_source_dir=AGENT_SOURCE,
            progress=lambda _line: None,
        )
    )


@pytest.fixture(scope="session")
def base_layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A busybox root file system."""
    return make_base_layer(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def vm(
    guest_image: GuestImage, base_layer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AgentVm]:
    """One VM for many containers, each with a scratch disk of its own."""
    directory = tmp_path_factory.mktemp("vm")
    disks = [Disk("base", base_layer)]
    for n in range(SCRATCH_DISKS):
        disks.append(Disk(f"scratch{n}", make_scratch(directory / f"scratch{n}"), read_only=False))
    machine = AgentVm(guest_image, directory, disks)
    try:
        machine.host.open()
        yield machine
    finally:
        machine.close()
        print(machine.console.read_text(errors="replace")[-4000:])  # noqa: T201  # on failure


@pytest.fixture
def scratch(tmp_path: Path) -> Disk:
    """A scratch disk."""
    return Disk("scratch0", make_scratch(tmp_path / "scratch"), read_only=False)


@pytest.fixture
def machines(guest_image: GuestImage, tmp_path: Path) -> Iterator[Machines]:
    """VMs of one test."""
    machines = Machines(guest_image, tmp_path)
    try:
        yield machines
    finally:
        machines.close()
