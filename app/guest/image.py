"""Builds the guest: a LinuxKit file becomes a kernel and an initrd.

The initrd holds the agent as /init, the files of the LinuxKit file, and kernel modules. Which
modules is told by two of those files, in the form of modules-load.d(5): `EARLY_MODULES`, what the
channel to the host needs, and `LATE_MODULES`, loaded once the agent answers. The paths to load, in
order, are in /etc/modules.load; a line beginning with `#` separates the two parts.

Beside them lies the layer that a VM warms up with before it gets a container.

Equal inputs give equal bytes, and are built once: by key (LinuxKit file, agent sources, kernel
package versions, this builder) in a cache that any number of processes may use.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import DeadlineExceeded, PrerequisiteMissing, ResourceExhausted
from app.guest.commands import CommandFailed, run_command
from app.guest.cpio import (
    Entry,
    character_device_entry,
    directory_entry,
    file_entry,
    write_newc,
)
from app.guest.kernel import (
    Kernel,
    Progress,
    cached_kernel,
    fetch_kernel,
    generic_kernel_package,
)
from app.guest.linuxkit import LinuxKitFile, load_linuxkit, module_list
from app.guest.publishing import (
    mark_used,
    publish_directory,
    remove_unused,
    write_durably,
)
from app.guest.warm_up import pack_warm_up_layer

EARLY_MODULES = "etc/modules-load.d/early.conf"
LATE_MODULES = "etc/modules-load.d/late.conf"
AGENT_BINARY = "slipway-agent"
WARM_UP_BINARY = "warm-up"
# Raised when the same inputs would give other bytes.
_FORMAT = 3
_MODULE_LIST = "etc/modules.load"
_COMPILE_TIMEOUT_S = 300.0
# Long enough for another process to download a kernel.
_LOCK_TIMEOUT_S = 1200.0
_LOCK_POLL_S = 0.1
_KEPT_IMAGES = 4
_COMPILER_ADVICE = "Install the compiler: `sudo apt-get install gcc libc6-dev make`."
_DIRECTORIES = ("dev", "etc", "proc", "run", "sys", "tmp")


@dataclass(frozen=True)
class GuestImage:
    """A guest that a hypervisor can boot.

    Attributes:
        kernel: ELF vmlinux.
        initrd: Uncompressed cpio archive (newc).
        cmdline: Kernel command line, without what a hypervisor's devices need.
        kernel_version: As `uname -r` tells it in the guest.
        key: Names the build: equal keys, equal bytes.
        warm_up_layer: A disk as image layers are; its `warm-up` does what usual programs do.
    """

    kernel: Path
    initrd: Path
    cmdline: str
    kernel_version: str
    key: str
    warm_up_layer: Path


@dataclass(frozen=True)
class _Programs:
    """What was compiled."""

    agent: bytes
    warm_up_layer: bytes


async def build_guest(
    yaml_path: Path,
    *,
    cache_dir: Path,
    agent_source_dir: Path,
    progress: Progress,
    refresh: bool = False,
    source_date_epoch_s: int = 0,
) -> GuestImage:
    """Build a guest, or take it from the cache, where it costs some milliseconds and no network.

    A failed or cancelled build leaves nothing new but a finished kernel. Builds of several
    processes wait for each other.

    Args:
        yaml_path: LinuxKit file.
        cache_dir: Made if missing; may be removed at any time that no VM starts.
        agent_source_dir: C sources of the agent with their Makefile.
        progress: Called with a line for each step that takes time, and for each warning.
        refresh: Look for a newer kernel package than the one used before.
        source_date_epoch_s: Time stamp of every file in the initrd.

    Raises:
        InvalidArgument: The file is wrong, or names a module that the kernel lacks.
        Unsupported: The file asks for what this release does not build.
        PrerequisiteMissing: No compiler, no apt, or the kernel package is unknown here.
        Unavailable: The kernel cannot be downloaded.
        CorruptData: The kernel package is damaged.
        ResourceExhausted: The disk is full.
        DeadlineExceeded: A step, or another process's build, took too long.
    """
    file = await asyncio.to_thread(load_linuxkit, yaml_path)
    for warning in file.warnings:
        progress(f"warning: {warning}")
    package = file.kernel_package or generic_kernel_package()
    try:
        await asyncio.to_thread(cache_dir.mkdir, parents=True, exist_ok=True)
        async with _cache_lock(cache_dir, progress):
            kernel = await fetch_kernel(
                package,
                module_list(file.files, EARLY_MODULES),
                module_list(file.files, LATE_MODULES),
                cache_dir=cache_dir / "kernels",
                refresh=refresh,
                progress=progress,
            )
            key = await asyncio.to_thread(
                _image_key, file, kernel, agent_source_dir, source_date_epoch_s
            )
            directory = cache_dir / "images" / key
            image = await asyncio.to_thread(_load, directory)
            if image is None:
                programs = await _compile(
                    agent_source_dir, cache_dir, progress, source_date_epoch_s
                )
                progress("writing the initrd")
                image = await asyncio.to_thread(
                    _publish, file, kernel, programs, directory, source_date_epoch_s
                )
            return image
    except OSError as exc:
        raise ResourceExhausted(
            f"the guest cannot be written to {cache_dir}: {exc.strerror}",
            advice="Free disk space there, or make the directory writable, then try again.",
        ) from exc


def find_guest(yaml_path: Path, *, cache_dir: Path, agent_source_dir: Path) -> GuestImage | None:
    """The guest that `build_guest` would take from the cache; None if it would build one.

    Blocks for milliseconds and changes nothing.

    Raises:
        InvalidArgument: The LinuxKit file is wrong.
        PrerequisiteMissing: The agent's sources are not there, or the system is unknown.
        CorruptData: The cached kernel is damaged.
    """
    file = load_linuxkit(yaml_path)
    kernel = cached_kernel(
        file.kernel_package or generic_kernel_package(),
        module_list(file.files, EARLY_MODULES),
        module_list(file.files, LATE_MODULES),
        cache_dir=cache_dir / "kernels",
    )
    if kernel is None:
        return None
    return _load(cache_dir / "images" / _image_key(file, kernel, agent_source_dir, 0))


def export_guest(image: GuestImage, name: str, directory: Path) -> tuple[Path, Path, Path]:
    """Copy a guest to where LinuxKit's tools would put it.

    Returns:
        Paths of `<name>-kernel`, `<name>-initrd.img` and `<name>-cmdline`, replaced if there.

    Raises:
        ResourceExhausted: They cannot be written.
    """
    targets = (
        directory / f"{name}-kernel",
        directory / f"{name}-initrd.img",
        directory / f"{name}-cmdline",
    )
    try:
        write_durably(targets[0], image.kernel.read_bytes())
        write_durably(targets[1], image.initrd.read_bytes())
        write_durably(targets[2], f"{image.cmdline}\n".encode())
    except OSError as exc:
        raise ResourceExhausted(f"cannot write to {directory}: {exc.strerror}") from exc
    return targets


@contextlib.asynccontextmanager
async def _cache_lock(cache_dir: Path, progress: Progress) -> AsyncIterator[None]:
    with (cache_dir / ".lock").open("w") as lock:
        waited = False
        try:
            async with asyncio.timeout(_LOCK_TIMEOUT_S):
                while not _try_lock(lock.fileno()):
                    if not waited:
                        progress("waiting for another build of the guest")
                    waited = True
                    await asyncio.sleep(_LOCK_POLL_S)
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"another process has been building a guest in {cache_dir} for too long",
                advice="End that process, then try again.",
            ) from exc
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _agent_sources(directory: Path) -> list[Path]:
    """What the agent is made of; tests and leftovers of a build are not."""
    found = [
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        and (path.suffix in (".c", ".h") or path.name == "Makefile")
        and "tests" not in path.relative_to(directory).parts
    ]
    if not found:
        raise PrerequisiteMissing(
            f"the agent's sources are not in {directory}",
            advice="Install Slipway again: its package carries them.",
        )
    return found


def _image_key(
    file: LinuxKitFile, kernel: Kernel, agent_source_dir: Path, source_date_epoch_s: int
) -> str:
    digest = hashlib.sha256()

    def add(*parts: bytes) -> None:
        for part in parts:
            digest.update(len(part).to_bytes(8, "little") + part)

    add(str(_FORMAT).encode(), kernel.key.encode(), str(source_date_epoch_s).encode())
    add(file.cmdline.encode())
    for entry in file.files:
        numbers = f"{entry.mode} {entry.uid} {entry.gid}"
        add(entry.path.encode(), numbers.encode(), entry.data)
    for path in _agent_sources(agent_source_dir):
        add(path.relative_to(agent_source_dir).as_posix().encode(), path.read_bytes())
    return digest.hexdigest()[:32]


async def _compile(
    source_dir: Path, cache_dir: Path, progress: Progress, source_date_epoch_s: int
) -> _Programs:
    progress("compiling the agent")
    output = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=".agent-", dir=cache_dir))
    try:
        await run_command(
            ["make", "--no-print-directory", "-C", source_dir, f"OUT={output}"],
            timeout_s=_COMPILE_TIMEOUT_S,
            advice=_COMPILER_ADVICE,
            environment={"MAKEFLAGS": "", "MAKELEVEL": "", "SOURCE_DATE_EPOCH": "0"},
        )
        layer = await pack_warm_up_layer(
            output / WARM_UP_BINARY, output, source_date_epoch_s=source_date_epoch_s
        )
        return _Programs(await asyncio.to_thread((output / AGENT_BINARY).read_bytes), layer)
    except CommandFailed as exc:
        raise PrerequisiteMissing(
            f"the agent cannot be compiled: {exc.output}", advice=_COMPILER_ADVICE
        ) from exc
    finally:
        await asyncio.to_thread(shutil.rmtree, output, ignore_errors=True)


def _root_entries(file: LinuxKitFile, kernel: Kernel, agent: bytes) -> Iterable[Entry]:
    lines = [
        *(f"/{path}" for path in kernel.early),
        "# The agent answers the host before it loads these.",
        *(f"/{path}" for path in kernel.late),
    ]
    yield from file.files
    given = {entry.path for entry in file.files}
    yield from (directory_entry(path) for path in _DIRECTORIES if path not in given)
    yield character_device_entry("dev/console", 5, 1, 0o600)
    yield character_device_entry("dev/null", 1, 3, 0o666)
    yield file_entry("init", agent, 0o755)
    yield file_entry(_MODULE_LIST, "".join(f"{line}\n" for line in lines).encode())
    for path in (*kernel.early, *kernel.late):
        yield file_entry(path, kernel.read_module(path))


def _publish(
    file: LinuxKitFile,
    kernel: Kernel,
    programs: _Programs,
    directory: Path,
    source_date_epoch_s: int,
) -> GuestImage:
    archive = io.BytesIO()
    write_newc(_root_entries(file, kernel, programs.agent), archive, mtime_s=source_date_epoch_s)
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".image-", dir=directory.parent))
    try:
        write_durably(staging / "initrd", archive.getvalue())
        write_durably(staging / "warm-up.sqfs", programs.warm_up_layer)
        # One copy on the disk, whichever directory is removed first.
        os.link(kernel.vmlinux, staging / "vmlinux")
        manifest = {"cmdline": file.cmdline, "kernel_version": kernel.release}
        manifest["sizes"] = " ".join(map(str, _sizes(staging)))
        write_durably(staging / "image.json", json.dumps(manifest, indent=1).encode())
        publish_directory(staging, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    image = _load(directory)
    assert image is not None  # noqa: S101  # written above, under the lock
    remove_unused(directory.parent, kept=_KEPT_IMAGES)
    return image


def _sizes(directory: Path) -> Iterable[int]:
    return ((directory / name).stat().st_size for name in ("vmlinux", "initrd", "warm-up.sqfs"))


def _load(directory: Path) -> GuestImage | None:
    """A finished image, or None if there is none or a crash of the machine has cut it short."""
    try:
        manifest = json.loads((directory / "image.json").read_bytes())
        if manifest["sizes"] != " ".join(map(str, _sizes(directory))):
            return None
        mark_used(directory)
        return GuestImage(
            kernel=directory / "vmlinux",
            initrd=directory / "initrd",
            cmdline=manifest["cmdline"],
            kernel_version=manifest["kernel_version"],
            key=directory.name,
            warm_up_layer=directory / "warm-up.sqfs",
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
