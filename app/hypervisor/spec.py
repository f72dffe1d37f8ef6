"""Rules about a VmSpec that every hypervisor checks before it touches anything."""

import re
from collections import Counter

from app.core.errors import InvalidArgument
from app.hypervisor.port import DiskSpec, VmSpec

MIN_MEMORY_BYTES = 32 * 1024 * 1024
MAX_VCPUS = 255  # of a PC without interrupt remapping
MAX_CMDLINE_BYTES = 2047  # COMMAND_LINE_SIZE of Linux on x86 is 2048 with the final NUL

_ID = re.compile(r"[0-9a-f]{12}")
_SERIAL = re.compile(r"[A-Za-z0-9-]{1,20}")


def check_spec(spec: VmSpec) -> None:
    """Check the form of a spec; files are not looked at.

    Raises:
        InvalidArgument: With the offending field.
    """
    if not _ID.fullmatch(spec.id):
        raise InvalidArgument(f"VM id {spec.id!r} is not 12 hex digits", field="id")
    if not 1 <= spec.vcpus <= MAX_VCPUS:
        raise InvalidArgument(
            f"VM {spec.id}: {spec.vcpus} vCPUs; 1 to {MAX_VCPUS} are possible", field="vcpus"
        )
    if spec.memory_bytes < MIN_MEMORY_BYTES:
        raise InvalidArgument(
            f"VM {spec.id}: {spec.memory_bytes} bytes of memory are too few to boot "
            f"(at least {MIN_MEMORY_BYTES})",
            field="memory_bytes",
        )
    if len(spec.cmdline.encode()) > MAX_CMDLINE_BYTES or not spec.cmdline.isprintable():
        raise InvalidArgument(
            f"VM {spec.id}: the kernel command line is longer than {MAX_CMDLINE_BYTES} bytes or "
            "holds control characters",
            field="cmdline",
        )
    for disk in spec.disks:
        check_disk(disk)
    for serial, count in Counter(disk.serial for disk in spec.disks).items():
        if count > 1:
            raise InvalidArgument(
                f"VM {spec.id}: {count} disks have the serial {serial}", field="disks"
            )


def check_disk(disk: DiskSpec) -> None:
    """Check the form of a disk.

    Raises:
        InvalidArgument: The serial has a wrong form.
    """
    if not _SERIAL.fullmatch(disk.serial):
        raise InvalidArgument(
            f"Disk serial {disk.serial!r} is not 1 to 20 of A-Z, a-z, 0-9 and -", field="serial"
        )
