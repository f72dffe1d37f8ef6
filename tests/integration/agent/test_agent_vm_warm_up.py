"""One VM, several containers one after the other: what a VM of the pool goes through."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.core.ids import new_vm_id
from app.core.units import MIB
from app.domain.vm import VmEndReason
from app.guest.agent import Agent
from app.guest.agent_types import ContainerSpec, GuestFile, ProcessExited, ProcessSpec
from app.guest.channel import GuestChannel
from app.guest.image import GuestImage
from app.guest.records import RecordDecoder, Source
from app.guest.warm_up import WARM_UP_COMMAND
from app.hypervisor.port import DiskSpec, Vm, VmSpec
from app.hypervisor.qemu.hypervisor import QemuHypervisor
from tests.integration.agent_lab import DOCKER_CAPABILITIES, PATH_ENV, make_scratch

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

CYCLES = 5
STREAM_ID = 1
SHELL = """
cat /etc/hosts /etc/warm-up 2>/dev/null; ls /tmp; mount | wc -l; ls /proc | grep -c '^[0-9]'
echo kept >/kept; cat /kept
"""
HOSTS = (GuestFile("/etc/hosts", b"127.0.0.1 localhost\n"),)
Outcome = tuple[int, dict[Source, str]]
"""Exit code and output."""


class Tenant:
    """Disks and commands of one container after the other in one VM."""

    def __init__(self, vm: Vm, agent: Agent, directory: Path) -> None:
        self._vm, self._agent, self._directory = vm, agent, directory
        self._count = 0

    async def live(self, layer: Path, *args: str, stream_id: int) -> Outcome:
        """A whole life, from its disks to when they are taken out again."""
        self._count += 1
        container_id = f"c{self._count}"
        scratch = await asyncio.to_thread(make_scratch, self._directory / container_id, 64 * MIB)
        disks = (DiskSpec("layer-0", layer, True), DiskSpec("scratch", scratch, False))
        for disk in disks:
            await self._vm.attach_disk(disk)
        await self._agent.create(
            ContainerSpec(
                container_id,
                hostname=container_id,
                layers=("layer-0",),
                scratch="scratch",
                files=HOSTS,
                process=ProcessSpec(
                    args, stream_id, env=(PATH_ENV,), capabilities=DOCKER_CAPABILITIES
                ),
            )
        )
        reading = asyncio.create_task(self._read(stream_id))
        await self._agent.start(container_id)
        ended = await self._agent.next_event()
        assert isinstance(ended, ProcessExited)
        assert ended.container_id == container_id
        self._agent.channel.acknowledge_event(ended.number)
        output = await reading
        await self._agent.delete(container_id)
        for disk in disks:
            await self._vm.detach_disk(disk.serial)
        return ended.exit_code, output

    async def _read(self, stream_id: int) -> dict[Source, str]:
        decoder, found = RecordDecoder(), dict.fromkeys(Source, "")
        stream = self._agent.channel.open_output(stream_id)
        async for chunk in stream:
            for record in decoder.feed(chunk.data):
                found[record.source] += record.data.decode()
            stream.acknowledge(chunk.end_offset, eof=chunk.eof)
        return found


@asynccontextmanager
async def booted(guest: GuestImage, directory: Path) -> AsyncIterator[tuple[Vm, Agent]]:
    """A VM without disks."""
    hypervisor = QemuHypervisor(run_root=directory / "v", accelerator="tcg")
    vm = await hypervisor.create(
        VmSpec(
            id=new_vm_id(),
            vcpus=1,
            memory_bytes=256 * MIB,
            kernel=guest.kernel,
            initrd=guest.initrd,
            cmdline=guest.cmdline,
            disks=(),
            labels={"pool": "1"},
        )
    )
    channel = GuestChannel(vm.open_channel, name=vm.spec.id)
    running = asyncio.create_task(channel.run())
    try:
        await channel.connected(60)
        yield vm, Agent(channel)
    finally:
        running.cancel()
        await asyncio.wait({running})
        await vm.stop(VmEndReason.STOPPED, grace_s=5)
        await vm.discard()
        await hypervisor.close()


async def test_vm_that_was_warmed_up_is_as_new_to_its_container(
    guest_image: GuestImage, base_layer: Path, tmp_path: Path
) -> None:
    async with booted(guest_image, tmp_path) as (vm, agent):
        tenant = Tenant(vm, agent, tmp_path)
        warm = tenant.live(guest_image.warm_up_layer, WARM_UP_COMMAND, stream_id=STREAM_ID + 1)
        assert await within(60, warm) == (0, {Source.STDOUT: "warm\n", Source.STDERR: "warm\n"})
        life = tenant.live(base_layer, "sh", "-c", SHELL, stream_id=STREAM_ID)
        code, output = await within(60, life)
        assert (code, output[Source.STDERR]) == (0, "")
        lines = output[Source.STDOUT].splitlines()
        assert lines[0] == "127.0.0.1 localhost"
        assert len(lines) == 4, lines  # nothing of the first is in /etc or /tmp
        assert (int(lines[1]) < 12, int(lines[2]) <= 4, lines[3]) == (True, True, "kept")
        await assert_console_is_quiet(vm)


async def test_disks_of_the_same_names_follow_each_other_at_once(
    guest_image: GuestImage, base_layer: Path, tmp_path: Path
) -> None:
    async with booted(guest_image, tmp_path) as (vm, agent):
        tenant = Tenant(vm, agent, tmp_path)
        for number in range(CYCLES):
            layers = (guest_image.warm_up_layer, WARM_UP_COMMAND), (base_layer, "true")
            layer, command = layers[number % 2]
            code, _ = await within(30, tenant.live(layer, command, stream_id=number + 1))
            assert code == 0
        await assert_console_is_quiet(vm)


async def within(timeout_s: float, life: Awaitable[Outcome]) -> Outcome:
    """The outcome, with a deadline."""
    async with asyncio.timeout(timeout_s):
        return await life


async def assert_console_is_quiet(vm: Vm) -> None:
    """A disk that is taken out while something is mounted on it makes the kernel complain."""
    text = await asyncio.to_thread(vm.console_path.read_text, errors="replace")
    complaints = [line for line in text.splitlines() if "error" in line.lower()]
    assert complaints == [], text
