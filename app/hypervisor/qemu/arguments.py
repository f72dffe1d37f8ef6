"""QEMU's command line: a pure function of the spec and of descriptor numbers.

No file of the host is named in it: everything reaches QEMU as a descriptor, so that its
unprivileged user needs no right in the data directory. Words: QEMU 7.2, qemu-system-x86_64(1).
"""

import json
from dataclasses import dataclass
from pathlib import Path

from app.core.units import GIB, MIB
from app.hypervisor.port import DiskSpec, VmSpec
from app.hypervisor.qemu.slots import SLOTS

CHANNEL_PORT = "slipway.0"
SCSI_BUS = "scsi.0"
FIRST_DISK_FDSET = 10  # lower ones are ours
CONSOLE_FDSET = 1

# Boots in 1.8 s where pc's defaults take 2.75 s.
MACHINE = "pc,hpet=off,vmport=off,smm=off,i8042=off,usb=off,dump-guest-core=off"
# With ERMS and FSRM the guest copies by "rep movsb", which TCG does byte by byte.
TCG_CPU = "max,-erms,-fsrm,-la57"
KVM_CPU = "host"
TCG_CACHE_MIB = 64
# A first start translates 37 MB. Where that does not fit QEMU throws all of it away in the midst of
# the start (0.08 s more), and a warmed VM is as slow as a cold one. Only what is used is resident.
CLONE_TCG_CACHE_MIB = 48
# Without a memory module it is small and one of many: slower starts for 20 MB less of memory.
SMALL_CLONE_TCG_CACHE_MIB = 15
MAX_MEMORY_BYTES = 64 * GIB  # of a clone with what is plugged; the guest sizes tables by it

# pvpanic reports a panic at once where the guest has its driver; panic=-1 makes any other one a
# reset, and -action a reset the end. reboot=t resets by a triple fault: the usual way is the
# keyboard controller, which MACHINE has not and Linux tries for seconds. acpi=noirq: under TCG the
# guest takes 0.35 s to compute "pc"'s interrupt routing from ACPI.
DEVICE_CMDLINE = "console=ttyS0 panic=-1 reboot=t acpi=noirq"
# Where memory can be plugged Linux else sets 64 MiB aside for devices that can't reach all of it.
PLUGGABLE_CMDLINE = "swiotlb=noforce"

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True)
class Descriptors:
    """Descriptor numbers that QEMU inherits.

    Attributes:
        monitor: Listening unix socket for QMP.
        channel: Listening unix socket for the agent's channel.
        console: Write end of the console's pipe.
        kernel: Readable again through /proc/self/fd by QEMU's user.
        initrd: Likewise.
        disks: In the order of the spec's disks; read-write or read-only as they say.
        memory: Of the VM's base memory, which is a template's, or becomes one; None: anonymous.
        state: Of what a template has beside memory, for a clone to read.
        kept: Only kept open: by them a later engine regains the template.
    """

    monitor: int
    channel: int
    console: int
    kernel: int
    initrd: int
    disks: tuple[int, ...]
    memory: int | None = None
    state: int | None = None
    kept: tuple[int, ...] = ()

    def numbers(self) -> tuple[int, ...]:
        """All of them."""
        memory = (fd for fd in (self.memory, self.state) if fd is not None)
        base = (self.monitor, self.channel, self.console, self.kernel, self.initrd)
        return (*base, *self.disks, *memory, *self.kept)


def qemu_arguments(
    binary: str,
    spec: VmSpec,
    *,
    accelerator: str,
    descriptors: Descriptors,
    base_bytes: int | None = None,
    tsc_khz: int | None = None,
) -> list[str]:
    """The whole command line.

    Args:
        binary: QEMU.
        spec: What to run.
        accelerator: "kvm" or "tcg".
        descriptors: What it inherits.
        base_bytes: Memory of the template, if the VM is a clone; then its disks are only made
            known as descriptors, since a device must not be there before the saved state is.
        tsc_khz: What the guest is told of its time-stamp counter; None: it measures the rate.
    """
    is_clone = base_bytes is not None
    arguments = [
        binary,
        *("-name", f"slipway-{spec.id}"),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-sandbox", SANDBOX),
        *("-M", MACHINE),
        *_accelerator_arguments(accelerator, _cache_mib(spec, base_bytes)),
        *("-smp", str(spec.vcpus)),
        *_memory_arguments(spec, descriptors, base_bytes),
        # The process stays, paused, after the guest's end until an engine has asked why.
        *("-action", "reboot=shutdown,shutdown=pause,panic=pause"),
        *("-kernel", f"/proc/self/fd/{descriptors.kernel}"),
        *("-initrd", f"/proc/self/fd/{descriptors.initrd}"),
        *("-append", _append(spec, descriptors, tsc_khz)),
        *_character_arguments(descriptors),
        *("-device", "pvpanic"),
        *("-object", "rng-builtin,id=rng"),
        *("-device", "virtio-rng-pci,rng=rng"),
        *("-device", "virtio-scsi-pci,id=scsi,num_queues=1"),
        # Takes nothing from the guest; what the guest reports as free goes back to the host.
        *("-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on"),
    ]
    if descriptors.memory is not None:
        arguments += [argument for slot in SLOTS for argument in slot.arguments()]
    if is_clone:
        arguments += ["-incoming", "defer", "-global", "migration.x-events=on"]
    return arguments + _disk_arguments(spec, descriptors, are_plugged=not is_clone)


def _disk_arguments(spec: VmSpec, descriptors: Descriptors, *, are_plugged: bool) -> list[str]:
    arguments: list[str] = []
    for number, (disk, fd) in enumerate(zip(spec.disks, descriptors.disks, strict=True)):
        fdset = FIRST_DISK_FDSET + number
        arguments += ["-add-fd", f"fd={fd},set={fdset},opaque={disk.serial}"]
        if are_plugged:
            arguments += ["-blockdev", json.dumps(blockdev(disk, fdset))]
            arguments += ["-device", json.dumps(disk_device(disk))]
    return arguments


def device_layout() -> list[str]:
    """All that a clone must share with its template beside what the spec says."""
    return [
        *(MACHINE, TCG_CPU, KVM_CPU, DEVICE_CMDLINE, PLUGGABLE_CMDLINE),
        *qemu_arguments("", _LAYOUT_SPEC, accelerator="tcg", descriptors=_LAYOUT_DESCRIPTORS),
    ]


def _cache_mib(spec: VmSpec, base_bytes: int | None) -> int:
    if base_bytes is None:
        return TCG_CACHE_MIB
    return CLONE_TCG_CACHE_MIB if spec.memory_bytes > base_bytes else SMALL_CLONE_TCG_CACHE_MIB


def _accelerator_arguments(accelerator: str, cache_mib: int) -> list[str]:
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", KVM_CPU]
    return ["-accel", f"tcg,tb-size={cache_mib}", "-cpu", TCG_CPU]


def _memory_arguments(
    spec: VmSpec, descriptors: Descriptors, base_bytes: int | None
) -> tuple[str, ...]:
    size = f"{-(-(base_bytes or spec.memory_bytes) // MIB)}M"
    if descriptors.memory is None:
        return ("-m", size)
    share = "on" if base_bytes is None else "off"
    path = f"/proc/self/fd/{descriptors.memory}"
    return (
        *("-m", f"{size},slots=1,maxmem={MAX_MEMORY_BYTES // MIB}M"),
        *("-object", f"memory-backend-file,id=base,size={size},mem-path={path},share={share}"),
        *("-machine", "memory-backend=base"),
    )


def _append(spec: VmSpec, descriptors: Descriptors, tsc_khz: int | None) -> str:
    words = [spec.cmdline, DEVICE_CMDLINE]
    if tsc_khz is not None:
        words.append(tsc_cmdline(tsc_khz))
    if descriptors.memory is not None:
        words.append(PLUGGABLE_CMDLINE)
    return " ".join(words).strip()


def tsc_cmdline(tsc_khz: int) -> str:
    """What tells Linux the rate of its time-stamp counter."""
    return f"tsc_early_khz={tsc_khz}"


def _character_arguments(descriptors: Descriptors) -> list[str]:
    return [
        *("-chardev", f"socket,id=monitor,fd={descriptors.monitor},server=on,wait=off"),
        *("-mon", "chardev=monitor,mode=control"),
        *("-add-fd", f"fd={descriptors.console},set={CONSOLE_FDSET}"),
        *("-chardev", f"file,id=console,path=/dev/fdset/{CONSOLE_FDSET},append=on"),
        *("-serial", "chardev:console"),
        *("-device", "virtio-serial-pci,id=serial,max_ports=2"),
        *("-chardev", f"socket,id=channel,fd={descriptors.channel},server=on,wait=off"),
        *("-device", f"virtserialport,bus=serial.0,chardev=channel,name={CHANNEL_PORT}"),
    ]


def disk_node(serial: str) -> str:
    """Name of the block node of a disk (at most 31 characters)."""
    return f"node-{serial}"


def disk_device_id(serial: str) -> str:
    """Id of the SCSI device of a disk."""
    return f"disk-{serial}"


def blockdev(disk: DiskSpec, fdset: int) -> dict[str, object]:
    """Argument of `blockdev-add`: raw over the descriptor in the set."""
    return {
        "driver": "raw",
        "node-name": disk_node(disk.serial),
        "read-only": disk.read_only,
        "discard": "unmap",
        "file": {
            "driver": "file",
            "filename": f"/dev/fdset/{fdset}",
            "read-only": disk.read_only,
            "discard": "unmap",
        },
    }


def disk_device(disk: DiskSpec) -> dict[str, object]:
    """Argument of `device_add`; QEMU's default policy pauses the VM when the host disk is full."""
    return {
        "driver": "scsi-hd",
        "id": disk_device_id(disk.serial),
        "bus": SCSI_BUS,
        "drive": disk_node(disk.serial),
        "serial": disk.serial,
    }


_LAYOUT_SPEC = VmSpec(
    id="",
    vcpus=1,
    memory_bytes=MIB,
    kernel=Path(),
    initrd=Path(),
    cmdline="",
    disks=(),
    labels={},
    for_template=True,
)
_LAYOUT_DESCRIPTORS = Descriptors(0, 0, 0, 0, 0, disks=(), memory=0, state=0)
