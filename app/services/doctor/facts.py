"""Reads what the checks judge: programs, versions, memory, disks, ports, permissions."""

import asyncio
import os
import platform
import pwd
import re
import shutil
import socket
import sqlite3
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import SlipwayError
from app.domain.vm import Accelerator
from app.hypervisor.port import Hypervisor
from app.setup.machine import OS_RELEASE, parse_os_release
from app.storage.data_directory import EngineAddress, find_engine

# Program -> (arguments that print its version, Debian package it is in).
PROGRAMS = {
    "qemu-system-x86_64": (("--version",), "qemu-system-x86"),
    "sqfstar": (("-version",), "squashfs-tools"),
    "mkfs.ext4": (("-V",), "e2fsprogs"),
    "gcc": (("--version",), "gcc"),
    "make": (("--version",), "make"),
    "apt-get": (("--version",), "apt"),
    "dpkg-deb": (("--version",), "dpkg"),
    "tar": (("--version",), "tar"),
    "busybox": ((), "busybox-static"),
}
VERSION_TIMEOUT_S = 10.0
VERSION = re.compile(r"\d+\.\d+[.\d]*")
PATH_FOR_PROGRAMS = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"  # mkfs.ext4


@dataclass(frozen=True)
class DirectoryFacts:
    """The data directory.

    Attributes:
        mode: Permission bits, or None while it does not exist.
        owner_uid: Its owner, or None while it does not exist.
        is_writable: For this process; before it exists, whether it could be made.
    """

    path: Path
    mode: int | None
    owner_uid: int | None
    is_writable: bool
    free_bytes: int


@dataclass(frozen=True)
class GuestFacts:
    """The guest's kernel and initrd; `fault` says why there is none, and is empty if there is."""

    kernel_version: str
    size_bytes: int
    fault: str = ""


@dataclass(frozen=True)
class Facts:
    """Everything the checks look at.

    Attributes:
        programs: Version of each program of PROGRAMS, "" if it prints none, None if missing.
        accelerator: What the probe found, or None with the reason in `accelerator_error`.
        has_port: Whether the dashboard's port is free, or held by this data directory's engine.
        engine: The engine that holds the data directory now.
        missing_assets: Browser assets that are not in place.
        docker_tcp: Where the Docker API asks for no certificate; empty: nowhere.
    """

    system: str
    architecture: str
    python_version: tuple[int, int, int]
    sqlite_version: str
    sqlite_has_fts5: bool
    programs: dict[str, str | None]
    kvm_exists: bool
    kvm_is_accessible: bool
    accelerator: Accelerator | None
    accelerator_error: str
    guest: GuestFacts
    memory_total_bytes: int
    memory_available_bytes: int
    memory_reserve_bytes: int
    default_memory_bytes: int
    data_directory: DirectoryFacts
    uid: int
    host: str
    port: int
    has_port: bool
    engine: EngineAddress | None
    missing_assets: tuple[str, ...]
    qemu_user: str
    qemu_user_exists: bool
    docker_tcp: str = ""


@dataclass(frozen=True)
class Subject:
    """What to look at, as the settings say."""

    data_dir: Path
    host: str
    port: int
    memory_reserve_bytes: int
    default_memory_bytes: int
    qemu_user: str
    static_dir: Path
    assets: tuple[str, ...]
    docker_tcp: str = ""


async def _version_of(program: str, arguments: tuple[str, ...]) -> str | None:
    path = shutil.which(program, path=PATH_FOR_PROGRAMS)
    if path is None:
        return None
    try:
        process = await asyncio.create_subprocess_exec(
            path,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(VERSION_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return ""
    found = VERSION.search(output.decode("utf-8", "replace"))
    return found.group() if found else ""


def read_meminfo(text: str) -> tuple[int, int]:
    """MemTotal and MemAvailable of /proc/meminfo, in bytes; 0 where a line is missing."""
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE))
    return int(fields.get("MemTotal", 0)) * 1024, int(fields.get("MemAvailable", 0)) * 1024


def look_at_directory(path: Path) -> DirectoryFacts:
    """The data directory, or, before it exists, the nearest directory above it."""
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    status = path.stat() if path.is_dir() else None
    return DirectoryFacts(
        path=path,
        mode=None if status is None else stat.S_IMODE(status.st_mode),
        owner_uid=None if status is None else status.st_uid,
        is_writable=nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK),
        free_bytes=shutil.disk_usage(nearest).free,
    )


def is_port_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


UID_RANGE = re.compile(r"\d+-\d+")  # as SLIPWAY_QEMU_USER may be


def has_user(name: str) -> bool:
    """Whether the machine knows that user; a range of ids needs no entry anywhere."""
    if UID_RANGE.fullmatch(name):
        return True
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def has_fts5() -> bool:
    """Whether Python's SQLite can search text."""
    with sqlite3.connect(":memory:") as connection:
        rows = connection.execute("PRAGMA compile_options").fetchall()
    connection.close()
    return ("ENABLE_FTS5",) in rows


async def gather(subject: Subject, hypervisor: Hypervisor, guest: GuestFacts) -> Facts:
    """Read the machine; the accelerator's probe may take as long as a boot of the guest.

    Args:
        subject: What the settings say.
        hypervisor: Asked for the accelerator; not asked while the guest is not built.
        guest: The guest as it was found.
    """
    versions = await asyncio.gather(
        *(_version_of(name, arguments) for name, (arguments, _) in PROGRAMS.items())
    )
    programs = dict(zip(PROGRAMS, versions, strict=True))
    accelerator, error = None, ""
    if not guest.fault and programs["qemu-system-x86_64"] is not None:
        try:
            accelerator = await hypervisor.accelerator()
        except SlipwayError as exc:
            error = exc.message
    return await asyncio.to_thread(_read_machine, subject, programs, accelerator, error, guest)


def _engine_of(data_dir: Path) -> EngineAddress | None:
    try:
        return find_engine(data_dir)
    except SlipwayError:
        return None  # the directory's own check names the cause


def _read_machine(
    subject: Subject,
    programs: dict[str, str | None],
    accelerator: Accelerator | None,
    accelerator_error: str,
    guest: GuestFacts,
) -> Facts:
    kvm = Path("/dev/kvm")
    total, available = read_meminfo(Path("/proc/meminfo").read_text(encoding="ascii"))
    release = OS_RELEASE.read_text(encoding="utf-8") if OS_RELEASE.exists() else ""
    engine = _engine_of(subject.data_dir)
    return Facts(
        system=parse_os_release(release).get("PRETTY_NAME", platform.system()),
        architecture=platform.machine(),
        python_version=sys.version_info[:3],
        sqlite_version=sqlite3.sqlite_version,
        sqlite_has_fts5=has_fts5(),
        programs=programs,
        kvm_exists=kvm.exists(),
        kvm_is_accessible=os.access(kvm, os.R_OK | os.W_OK),
        accelerator=accelerator,
        accelerator_error=accelerator_error,
        guest=guest,
        memory_total_bytes=total,
        memory_available_bytes=available,
        memory_reserve_bytes=subject.memory_reserve_bytes,
        default_memory_bytes=subject.default_memory_bytes,
        data_directory=look_at_directory(subject.data_dir),
        uid=os.geteuid(),
        host=subject.host,
        port=subject.port,
        has_port=is_port_free(subject.host, subject.port) or engine is not None,
        engine=engine,
        missing_assets=tuple(
            name for name in subject.assets if not (subject.static_dir / "vendor" / name).is_file()
        ),
        qemu_user=subject.qemu_user,
        qemu_user_exists=has_user(subject.qemu_user),
        docker_tcp=subject.docker_tcp,
    )
