"""What the hypervisor contract suite needs of each implementation, and how it talks to a guest."""

import asyncio
import secrets
from asyncio import StreamReader, StreamWriter
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from app.core.ids import new_vm_id
from app.hypervisor.fake import FakeHypervisor
from app.hypervisor.fake_machine import FakeMachine
from app.hypervisor.port import DiskSpec, Hypervisor, Vm, VmSpec

MIB = 1024 * 1024
BOOT_DEADLINE_S = 60.0
ANSWER_DEADLINE_S = 20.0


class Lab(Protocol):
    """A host with one implementation on it, and hands to do harm with."""

    directory: Path

    def engine(self) -> Hypervisor:
        """Another engine's hypervisor over the same data directory."""

    def spec(self) -> VmSpec:
        """A small VM that boots the guest of this suite."""

    async def kill(self, vm: Vm) -> None:
        """SIGKILL to the VM's process by somebody else."""

    async def leftovers(self) -> list[str]:
        """What there is of any VM: processes, run directories, sockets."""


class Talk:
    """A conversation with the guest over a fresh channel connection; one line each way."""

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self.reader: StreamReader
        self.writer: StreamWriter

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await self._vm.open_channel()
        nonce = secrets.token_hex(8)
        # The first newline ends whatever line an earlier connection left half-written.
        self.writer.write(f"\necho {nonce}\n".encode())
        async with asyncio.timeout(BOOT_DEADLINE_S):
            while await self._line() != nonce:
                pass
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.writer.close()

    async def ask(self, line: str) -> str:
        """Send a line, read the answer."""
        self.tell(line)
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            return await self._line()

    def tell(self, line: str) -> None:
        """Send a line that has no answer."""
        self.writer.write(line.encode() + b"\n")

    async def _line(self) -> str:
        data = await self.reader.readline()
        if not data.endswith(b"\n"):
            raise EOFError(f"the channel ended in {data!r}")
        return data.rstrip(b"\n").decode(errors="replace")

    async def wait_disks(self, *serials: str) -> dict[str, tuple[int, str]]:
        """Ask until exactly these disks are there; serial -> (size in bytes, "ro" or "rw")."""
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            while True:
                words = (await self.ask("disks")).split()[1:]
                disks = {}
                for word in words:
                    serial, size, mode = word.split(":")
                    disks[serial] = (int(size), mode)
                if disks.keys() == set(serials):
                    return disks
                await asyncio.sleep(0.05)  # the guest scans for disks by itself; nothing tells us


def make_image(directory: Path, name: str, *, text: str = "", size_bytes: int = MIB) -> Path:
    """A raw image whose first block begins with `text`."""
    path = directory / name
    path.write_bytes(text.encode())
    with path.open("r+b") as file:
        file.truncate(size_bytes)
    return path


class FakeLab(AbstractAsyncContextManager["FakeLab"]):
    """The fake, its machine and a guest that obeys the lines of guest_echo.c."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.machine = FakeMachine(directory / "v", self._guest)
        self._engines: list[FakeHypervisor] = []
        for name in ("kernel", "initrd"):
            (directory / name).write_bytes(b"fake")

    async def __aexit__(self, *_: object) -> None:
        for engine in self._engines:
            await engine.close()
        await self.machine.__aexit__()

    def engine(self) -> Hypervisor:
        hypervisor = FakeHypervisor(self.machine, can_clone=True)
        self._engines.append(hypervisor)
        return hypervisor

    def spec(self) -> VmSpec:
        return VmSpec(
            id=new_vm_id(),
            vcpus=1,
            memory_bytes=128 * MIB,
            kernel=self.directory / "kernel",
            initrd=self.directory / "initrd",
            cmdline="quiet",
            disks=(),
            labels={"container": "abc"},
        )

    async def kill(self, vm: Vm) -> None:
        await self.machine.kill(vm.spec.id)

    async def leftovers(self) -> list[str]:
        found = [f"vm {vm_id}" for vm_id, vm in self.machine.vms.items() if vm.exit is None]
        run_root = self.directory / "v"
        return found + ([path.name for path in run_root.iterdir()] if run_root.exists() else [])

    async def _guest(self, spec: VmSpec, reader: StreamReader, writer: StreamWriter) -> None:
        while line := await reader.readline():
            command, _, rest = line.decode().strip("\0\n").partition(" ")
            if command == "panic":
                raise RuntimeError("Attempted to kill init!")
            if command == "poweroff":
                return
            if command == "spin":
                await reader.read()
            elif command == "flood":
                writer.write(b"x" * int(rest))
            else:
                writer.write(f"{self._answer(spec, command, rest)}\n".encode())
            await writer.drain()

    def _answer(self, spec: VmSpec, command: str, rest: str) -> str:
        disks: dict[str, DiskSpec] = self.machine.vms[spec.id].disks
        match command:
            case "echo":
                return rest
            case "disks":
                words = [
                    f"{serial}:{disk.path.stat().st_size}:{'ro' if disk.read_only else 'rw'}"
                    for serial, disk in disks.items()
                ]
                return " ".join(["disks", *words])
            case "read":
                with disks[rest].path.open("rb") as file:
                    return "block " + file.read(512).rstrip(b"\0").decode()
            case "write":
                serial, _, text = rest.partition(" ")
                if disks[serial].read_only:
                    return "error 30"
                with disks[serial].path.open("r+b") as file:
                    file.write(text.encode())
                return "block written"
            case _:
                return f"unknown {command}"
