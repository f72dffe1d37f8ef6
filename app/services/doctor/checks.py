"""Judges facts: one pure function per prerequisite."""

import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from app.core.units import GIB, MIB
from app.services.doctor.facts import PROGRAMS, Facts

FREE_DISK_FAULT_BYTES = 512 * MIB
FREE_DISK_WARNING_BYTES = 5 * GIB
OLDEST_PYTHON = (3, 11, 0)
OLDEST_QEMU = (7, 2)


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"  # works, with a loss that the text names
    FAULT = "fault"  # Slipway, or a main part of it, can't work


@dataclass(frozen=True)
class Finding:
    """What one check says; `cure` is empty only when there is nothing to cure."""

    check: str
    verdict: Verdict
    text: str
    cure: str = ""


def _ok(check: str, text: str) -> Finding:
    return Finding(check, Verdict.OK, text)


def check_system(facts: Facts) -> Finding:
    """Slipway's guest and QEMU command line are for x86_64."""
    text = f"{facts.system}, {facts.architecture}"
    if facts.architecture != "x86_64":
        return Finding("system", Verdict.FAULT, text, "Use an x86_64 machine.")
    return _ok("system", text)


def check_python(facts: Facts) -> Finding:
    """The language floor, and SQLite's text search for the log store."""
    python = ".".join(str(part) for part in facts.python_version)
    text = f"Python {python}, SQLite {facts.sqlite_version}"
    if facts.python_version < OLDEST_PYTHON:
        return Finding("python", Verdict.FAULT, text, "Install Python 3.11 or newer.")
    if not facts.sqlite_has_fts5:
        return Finding(
            "python",
            Verdict.FAULT,
            f"{text} without FTS5",
            "Use a Python whose SQLite has FTS5, such as the distribution's own.",
        )
    return _ok("python", text)


def check_programs(facts: Facts) -> Finding:
    """Every program that Slipway starts."""
    missing = [name for name in PROGRAMS if facts.programs.get(name) is None]
    if missing:
        packages = sorted({PROGRAMS[name][1] for name in missing})
        return Finding(
            "programs",
            Verdict.FAULT,
            f"missing: {', '.join(missing)}",
            f"apt-get install --no-install-recommends {' '.join(packages)}",
        )
    versions = [f"{name} {version}".strip() for name, version in facts.programs.items()]
    return _ok("programs", ", ".join(versions))


def check_qemu(facts: Facts) -> Finding:
    """QEMU's age, and the user that it runs as."""
    version = facts.programs.get("qemu-system-x86_64")
    if version is None:
        return Finding("qemu", Verdict.FAULT, "not installed", "apt-get install qemu-system-x86")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST_QEMU:
        return Finding(
            "qemu", Verdict.FAULT, f"version {version or 'unknown'}", "Install QEMU 7.2 or newer."
        )
    if facts.uid == 0 and not facts.qemu_user_exists:
        return Finding(
            "qemu",
            Verdict.FAULT,
            f"version {version}; the user {facts.qemu_user!r} that VMs run as does not exist",
            "Set SLIPWAY_QEMU_USER to an existing unprivileged user.",
        )
    user = facts.qemu_user if facts.uid == 0 else "the engine's own user"
    return _ok("qemu", f"version {version}; VMs run as {user}")


def check_guest(facts: Facts) -> Finding:
    """Kernel and initrd are built."""
    if facts.guest.fault:
        return Finding("guest", Verdict.FAULT, facts.guest.fault, "slipway guest build")
    size_mib = facts.guest.size_bytes / MIB
    return _ok("guest", f"kernel {facts.guest.kernel_version}, {size_mib:.1f} MiB")


def check_accelerator(facts: Facts) -> Finding:
    """What really runs guest code; software emulation works and is slow."""
    if facts.accelerator is None:
        reason = facts.accelerator_error or "not probed: QEMU or the guest is missing"
        cure = "Cure the faults of qemu and guest first, then run slipway doctor again."
        if facts.accelerator_error:
            cure = "Set SLIPWAY_ACCELERATOR=auto; if that fails too, reinstall qemu-system-x86."
        return Finding("accelerator", Verdict.FAULT, reason, cure)
    boot_ms = facts.accelerator.boot_ms
    measured = "" if boot_ms is None else f"; guest booted in {boot_ms:.0f} ms"
    text = f"{facts.accelerator.name}: {facts.accelerator.reason.rstrip('.')}{measured}"
    if facts.accelerator.name == "kvm":
        return _ok("accelerator", text)
    return Finding("accelerator", Verdict.WARNING, text, _kvm_cure(facts))


def _kvm_cure(facts: Facts) -> str:
    if not facts.kvm_exists:
        return (
            "Switch on virtualization in the firmware, or nested virtualization for this machine "
            "on its host, and load kvm_intel or kvm_amd. Without it containers run slower."
        )
    if not facts.kvm_is_accessible:
        return "Add the engine's user to the group kvm (usermod -aG kvm USER) and log in again."
    return (
        "/dev/kvm is there and does not run the guest: ask for real nested virtualization on this "
        "machine's host. Without it containers run slower."
    )


def check_memory(facts: Facts) -> Finding:
    """Room for at least one container of the default size above the reserve."""
    text = (
        f"{facts.memory_available_bytes // MIB} MiB available "
        f"of {facts.memory_total_bytes // MIB} MiB"
    )
    needed_bytes = facts.memory_reserve_bytes + facts.default_memory_bytes
    if facts.memory_available_bytes <= facts.memory_reserve_bytes:
        return Finding(
            "memory",
            Verdict.FAULT,
            f"{text}: no container can start",
            "End other programs, add memory, or lower SLIPWAY_MEMORY_RESERVE_BYTES.",
        )
    if facts.memory_available_bytes < needed_bytes:
        return Finding(
            "memory",
            Verdict.WARNING,
            f"{text}: less than one container of the default size can use",
            "End other programs, add memory, or lower SLIPWAY_DEFAULT_MEMORY_BYTES.",
        )
    return _ok("memory", text)


def check_disk(facts: Facts) -> Finding:
    """Room for images, logs and scratch disks."""
    directory = facts.data_directory
    text = f"{directory.free_bytes // MIB} MiB free at {directory.path}"
    cure = "Free disk space, or set SLIPWAY_DATA_DIR to a larger file system."
    if directory.free_bytes < FREE_DISK_FAULT_BYTES:
        return Finding("disk", Verdict.FAULT, text, cure)
    if directory.free_bytes < FREE_DISK_WARNING_BYTES:
        return Finding("disk", Verdict.WARNING, text, cure)
    return _ok("disk", text)


def check_data_directory(facts: Facts) -> Finding:
    """The data directory is ours, writable and private."""
    directory = facts.data_directory
    check = "data directory"
    if not directory.is_writable:
        return Finding(
            check,
            Verdict.FAULT,
            f"{directory.path} is not writable",
            "Correct its permissions, run as its owner, or set SLIPWAY_DATA_DIR.",
        )
    if directory.mode is None:
        return _ok(check, f"{directory.path} is made at the first start")
    if directory.owner_uid not in (None, facts.uid):
        return Finding(
            check,
            Verdict.FAULT,
            f"{directory.path} belongs to user id {directory.owner_uid}, this is {facts.uid}",
            f"Run as its owner, or: chown -R {facts.uid} {directory.path}",
        )
    if directory.mode & (stat.S_IRWXO | stat.S_IWGRP | stat.S_IRGRP):
        return Finding(
            check,
            Verdict.WARNING,
            f"{directory.path} can be read by others (mode {directory.mode:04o})",
            f"chmod go-rw,o-x {directory.path}",
        )
    return _ok(check, f"{directory.path} (mode {directory.mode:04o})")


def check_port(facts: Facts) -> Finding:
    """The dashboard can listen."""
    where = f"{facts.host}:{facts.port}"
    if facts.engine is not None:
        url = facts.engine.url or "an engine that does not serve yet"
        return _ok("port", f"an engine runs: {url} (process {facts.engine.pid})")
    if not facts.has_port:
        return Finding(
            "port",
            Verdict.FAULT,
            f"{where} is taken by another program or is no address of this machine",
            "Set SLIPWAY_PORT to a free port (or SLIPWAY_HOST to one of this machine's addresses).",
        )
    return _ok("port", f"{where} is free")


def check_docker_api(facts: Facts) -> Finding:
    """Nobody reaches the Docker API without credentials."""
    check = "docker api"
    if facts.docker_tcp:
        return Finding(
            check,
            Verdict.WARNING,
            f"{facts.docker_tcp} is open: every user of this machine can use the engine as root",
            "Unset SLIPWAY_DOCKER_TCP and use the unix socket, or SLIPWAY_DOCKER_TLS.",
        )
    return _ok(check, "asks for a file's permission or a certificate")


def check_assets(facts: Facts) -> Finding:
    """The browser's scripts are in place."""
    if facts.missing_assets:
        return Finding(
            "browser assets",
            Verdict.FAULT,
            f"missing: {', '.join(facts.missing_assets)}",
            "In a checkout: ./run fetches them. From a wheel: install the wheel again.",
        )
    return _ok("browser assets", "in place")


CHECKS: tuple[Callable[[Facts], Finding], ...] = (
    check_system,
    check_python,
    check_programs,
    check_qemu,
    check_guest,
    check_accelerator,
    check_memory,
    check_disk,
    check_data_directory,
    check_port,
    check_docker_api,
    check_assets,
)


def examine(facts: Facts) -> list[Finding]:
    """All findings, in the order in which faults should be cured."""
    return [check(facts) for check in CHECKS]
