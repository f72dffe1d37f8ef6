"""Real VMs and ordinary processes that run the agent, for tests of the agent itself."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.guest.image import GuestImage
from app.guest.protocol import Op, Tag
from app.hypervisor.qemu.arguments import DEVICE_CMDLINE, tsc_cmdline
from app.hypervisor.qemu.tsc import host_tsc_khz
from tests.integration.agent_driver import AgentHost, Fields, Value, decode, number

AGENT_SOURCE = Path(__file__).parents[2] / "guest" / "agent"
PATH_ENV = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DOCKER_CAPABILITIES = 0xA80425FB  # Docker's default fourteen
APPLETS = (
    "sh cat echo ls id mount ps sleep seq dd env grep hostname ip touch mkdir tty stty head tail "
    "true kill mknod wc ln stat uname df test find cut chmod rm date nproc yes printf"
).split()
SCRATCH_DISKS = 32
PORT_NAME = "slipway.0"
_BOOT_DEADLINE_S = 40


def require(*programs: str) -> None:
    """Skips the test where a program is missing."""
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")


def make_agent(directory: Path, target: str = "native") -> Path:
    """Compiles the agent; returns the binary."""
    require("gcc", "make")
    subprocess.run(
        ["make", "-s", "-C", AGENT_SOURCE, target, f"OUT={directory}"],
        check=True,
        timeout=120,
        capture_output=True,
    )
    return directory / ("slipway-agent-native" if target == "native" else "slipway-agent")


def connector(path: Path) -> Callable[[], socket.socket]:
    """Connects to a unix socket that may not be there yet."""

    def connect() -> socket.socket:
        deadline = time.monotonic() + 10
        while True:
            client = socket.socket(socket.AF_UNIX)
            try:
                client.connect(str(path))
            except OSError:
                client.close()
                assert time.monotonic() < deadline, f"nobody listens on {path}"
                time.sleep(0.01)
            else:
                return client

    return connect


class NativeAgent:
    """The agent as a process on this machine."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self.process = subprocess.Popen(
            [binary, "--listen", directory / "s", "--spool-dir", directory]
        )
        self.host = AgentHost(connector(directory / "s"))

    def close(self) -> None:
        """Ends it, with its containers."""
        self.host.close()
        self.process.kill()
        self.process.wait(10)


def make_layer(directory: Path, path: Path) -> Path:
    """Packs a directory as a layer."""
    subprocess.run(
        ["mksquashfs", directory, path, "-comp", "lz4", "-noappend", "-all-root", "-quiet"],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=60,
    )
    return path


def make_base_layer(directory: Path) -> Path:
    """A root file system of busybox and two users."""
    require("busybox", "mksquashfs", "mkfs.ext4")
    root = directory / "root"
    for name in ("bin", "etc", "tmp", "root", "home/app"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", root / "bin" / "busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n"
    )
    (root / "etc/group").write_text("root:x:0:\napp:x:1001:\nextra:x:2000:other,app\n")
    return make_layer(root, directory / "base.sqfs")


def make_scratch(path: Path, size_bytes: int = 256 << 20) -> Path:
    """An empty scratch disk, as the product formats it in all that matters to the agent."""
    with path.open("wb") as file:
        file.truncate(size_bytes)
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-i", "65536", "-J", "size=4",
         "-E", "lazy_itable_init=1,lazy_journal_init=1", path],
        check=True,
        timeout=60,
    )  # fmt: skip
    return path


@dataclass
class Disk:
    """A disk of a VM under test."""

    serial: str
    path: Path
    read_only: bool = True
    is_slot: bool = False  # one that the guest takes for a template's


@dataclass
class AgentVm:
    """A VM under software emulation with the built guest, and a host connected to it."""

    image: GuestImage
    directory: Path
    disks: list[Disk]
    memory_mib: int = 512
    arguments: list[str] = field(default_factory=list)
    port: str = PORT_NAME

    def __post_init__(self) -> None:
        require("qemu-system-x86_64")
        self.console = self.directory / "console"
        self.process = subprocess.Popen(self._command())
        self.host = AgentHost(connector(self.directory / "s"), deadline_s=_BOOT_DEADLINE_S)
        self._next_stream = 0
        self._next_name = 0

    def _command(self) -> list[str]:
        command = (
            "qemu-system-x86_64 -M pc,hpet=off -accel tcg -nodefaults -no-user-config -no-reboot "
            "-cpu qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16 -display none"
        ).split()
        command += ["-m", str(self.memory_mib), "-kernel", str(self.image.kernel)]
        command += [
            "-initrd",
            str(self.image.initrd),
            "-append",
            f"{self.image.cmdline} {DEVICE_CMDLINE} {tsc_cmdline(host_tsc_khz() or 0)}",
        ]
        command += ["-serial", f"file:{self.console}", "-device", "virtio-serial-pci"]
        command += ["-monitor", f"unix:{self.directory / 'm'},server=on,wait=off"]
        command += ["-chardev", f"socket,id=c,path={self.directory / 's'},server=on,wait=off"]
        command += ["-device", f"virtserialport,chardev=c,name={self.port}"]
        command += ["-device", "virtio-scsi-pci,id=scsi"]
        for n, disk in enumerate(self.disks):
            mode = "read-only=on" if disk.read_only else "discard=unmap"
            command += ["-drive", f"if=none,id=d{n},format=raw,file={disk.path},{mode}"]
            lun = f"channel=0,scsi-id={n // 64},lun={n % 64}"
            device = "virtio-blk-pci" if disk.is_slot else f"scsi-hd,{lun}"
            command += ["-device", f"{device},drive=d{n},serial={disk.serial}"]
        return command + self.arguments

    def monitor(self, line: str) -> str:
        """One command of QEMU's human monitor; its answer."""
        with connector(self.directory / "m")() as client:
            client.settimeout(10)
            text = b""
            for expected in (1, 2):
                while text.count(b"(qemu) ") < expected:
                    text += client.recv(4096)
                if expected == 1:
                    client.sendall(line.encode() + b"\n")
        return text.decode(errors="replace")

    def stream(self) -> int:
        """A stream id nobody has used."""
        self._next_stream += 1
        return self._next_stream

    def name(self) -> str:
        """A container id nobody has used."""
        self._next_name += 1
        return f"c{self._next_name}"

    def next_scratch(self) -> str:
        """Serial of the scratch disk that has not been used for longest."""
        serials = [disk.serial for disk in self.disks if disk.serial.startswith("scratch")]
        return serials[self._next_name % len(serials)]

    def create(self, *args: str, name: str, **options: Value) -> "Box":
        """CREATE; see `Box` for the options."""
        return Box(self, name, list(args), dict(options))

    def run(self, *args: str, **options: Value) -> "Box":
        """Creates a container, starts it, waits for its end and the end of its output."""
        box = self.create(*args, name=self.name(), **options)
        box.start()
        box.wait()
        return box

    def shell(self, script: str, **options: Value) -> str:
        """What a shell script prints in a fresh container; it must succeed."""
        box = self.run("sh", "-ec", script, **options)
        assert box.exit_code == 0, box.text
        return box.text

    def close(self) -> None:
        """Ends the VM."""
        self.host.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


class Machines:
    """Makes VMs, one after the other."""

    def __init__(self, image: GuestImage, directory: Path) -> None:
        self._image, self._directory, self._made = image, directory, list[AgentVm]()

    def boot(self, disks: list[Disk], memory_mib: int = 512, port: str = PORT_NAME) -> AgentVm:
        """A VM with these disks; its containers use scratch0."""
        directory = self._directory / f"vm{len(self._made)}"
        directory.mkdir()
        vm = AgentVm(self._image, directory, disks, memory_mib, port=port)
        self._made.append(vm)
        if port == PORT_NAME:
            vm.host.open()
        return vm

    def close(self) -> None:
        """Ends them all."""
        for vm in self._made:
            vm.close()


_PROCESS_OPTIONS = {
    "cwd": Tag.CWD, "user": Tag.USER, "tty": Tag.TTY, "rows": Tag.ROWS, "columns": Tag.COLUMNS,
    "stdin": Tag.STDIN_STREAM, "no_new_privileges": Tag.NO_NEW_PRIVILEGES,
    "oom_score_adj": Tag.OOM_SCORE_ADJ,
}  # fmt: skip
_CREATE_OPTIONS = {
    "spill_bytes": Tag.SPILL_BYTES, "read_only_root": Tag.READ_ONLY_ROOT, "init": Tag.INIT,
    "memory_bytes": Tag.MEMORY_MAX_BYTES, "pids_max": Tag.PIDS_MAX, "shm_bytes": Tag.SHM_BYTES,
    "cpu_quota_us": Tag.CPU_QUOTA_US, "seccomp": Tag.SECCOMP, "hostname": Tag.HOSTNAME,
    "cpu_weight": Tag.CPU_WEIGHT,
}  # fmt: skip


def process_fields(args: list[str], output: int, options: dict[str, Value]) -> Fields:
    """A PROCESS_SPEC; takes what it knows out of `options`."""
    fields: Fields = [(Tag.ARG, arg) for arg in args]
    fields += [(Tag.ENV, PATH_ENV), (Tag.OUTPUT_STREAM, output)]
    fields.append((Tag.CAPABILITIES, options.pop("capabilities", DOCKER_CAPABILITIES)))
    extra = options.pop("process", [])
    assert isinstance(extra, list)
    fields += extra
    fields += [
        (tag, options.pop(name)) for name, tag in _PROCESS_OPTIONS.items() if name in options
    ]
    return fields


class Box:
    """A container in an `AgentVm`.

    Options: the keys above; `layers` and `scratch` (serials), `fields` for CREATE and `process` for
    PROCESS_SPEC as they are, `capabilities`.
    """

    def __init__(self, vm: AgentVm, name: str, args: list[str], options: dict[str, Value]) -> None:
        self.vm, self.name, self.output = vm, name, vm.stream()
        layers = options.pop("layers", "base")
        assert isinstance(layers, str)
        scratch = options.pop("scratch", vm.next_scratch())
        fields: Fields = [(Tag.CONTAINER, name), (Tag.SCRATCH, scratch)]
        fields += [(Tag.LAYER, layer) for layer in layers.split(",") if layer]
        extra = options.pop("fields", [])
        assert isinstance(extra, list)
        fields += extra
        fields.append((Tag.PROCESS_SPEC, process_fields(args, self.output, options)))
        fields += [(_CREATE_OPTIONS[name], value) for name, value in options.items()]
        self.created = vm.host.call(Op.CREATE, fields)
        vm.host.ack(self.output)

    def start(self) -> None:
        """START."""
        self.vm.host.call(Op.START, [(Tag.CONTAINER, self.name)])

    def wait(self, deadline_s: float = 40) -> None:
        """Waits for its exit event and the end of its output."""
        host = self.vm.host
        output = host.outputs[self.output]
        host.until(lambda: output.ended and host.exit_event(self.name) is not None, deadline_s)

    def exec(self, process: str, *args: str, **options: Value) -> int:
        """EXEC; the output stream."""
        output = self.vm.stream()
        spec = process_fields(list(args), output, options)
        self.call(Op.EXEC, (Tag.PROCESS_ID, process), (Tag.PROCESS_SPEC, spec))
        self.vm.host.ack(output)
        return output

    def exec_text(self, process: str, *args: str, **options: Value) -> str:
        """EXEC, to its end; what it printed."""
        output = self.exec(process, *args, **options)
        host = self.vm.host
        host.until(
            lambda: host.outputs[output].ended and host.exit_event(self.name, process) is not None
        )
        return host.outputs[output].text()

    def call(self, op: Op, *fields: tuple[Tag, Value]) -> list[tuple[int, bytes]]:
        """A request about this container."""
        return self.vm.host.call(op, [(Tag.CONTAINER, self.name), *fields])

    def signal(self, signal: int, process: str = "init") -> None:
        """SIGNAL."""
        self.call(Op.SIGNAL, (Tag.PROCESS_ID, process), (Tag.SIGNAL, signal))

    def stats(self) -> dict[str, int]:
        """STATS by the tags' names."""
        return {Tag(tag).name: number(value) for tag, value in self.call(Op.STATS)}

    def wait_text(self, wanted: str) -> None:
        """Waits until its output contains something."""
        output = self.vm.host.outputs[self.output]
        self.vm.host.until(lambda: wanted in output.text())

    @property
    def text(self) -> str:
        """What it has printed."""
        return self.vm.host.outputs[self.output].text()

    @property
    def exit_code(self) -> int:
        """From the exit event."""
        return self.exit_number(Tag.EXIT_CODE)

    def exit_number(self, tag: Tag) -> int:
        """A number of the exit event."""
        event = self.vm.host.exit_event(self.name)
        assert event is not None
        return number(event[tag])


def create(
    host: AgentHost, name: str, *args: str, stream: int, extra: Fields | None = None
) -> None:
    """CREATE with a window for its output."""
    spec = process_fields(list(args), stream, {})
    host.call(Op.CREATE, [(Tag.CONTAINER, name), (Tag.PROCESS_SPEC, spec), *(extra or [])])
    host.ack(stream)


def start(host: AgentHost, name: str) -> None:
    """START."""
    host.call(Op.START, [(Tag.CONTAINER, name)])


def run(host: AgentHost, name: str, *args: str, stream: int, extra: Fields | None = None) -> str:
    """A container from CREATE to the end of its output."""
    create(host, name, *args, stream=stream, extra=extra)
    start(host, name)
    host.until(lambda: host.outputs[stream].ended and host.exit_event(name) is not None)
    return host.outputs[stream].text()


def stages(fields: list[tuple[int, bytes]]) -> dict[str, int]:
    """STAGE groups: name -> nanoseconds since boot."""
    groups = [dict(decode(value)) for tag, value in fields if tag == Tag.STAGE]
    return {group[Tag.NAME].decode(): number(group[Tag.AT_NS]) for group in groups}


def guest_cache(directory: Path) -> Path:
    """Where built guests are kept: SLIPWAY_TEST_GUEST_CACHE, or `directory`."""
    return Path(os.environ.get("SLIPWAY_TEST_GUEST_CACHE") or directory)
