"""Gets the guest's kernel: a distribution package, downloaded by apt, unpacked and never installed.

apt verifies what it downloads against the distribution's signatures. What comes out, an ELF kernel
and the modules that were asked for in load order, is kept in the cache by package version.
"""

import asyncio
import hashlib
import json
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import (
    CorruptData,
    PrerequisiteMissing,
    ResourceExhausted,
    Unavailable,
)
from app.guest.commands import CommandFailed, run_command
from app.guest.modules import ModuleTree
from app.guest.publishing import (
    mark_used,
    publish_directory,
    remove_unused,
    write_durably,
)
from app.guest.vmlinux import extract_vmlinux
from app.setup.packages import DISTRIBUTIONS, SUPPORTED

# Raised when the same packages would give other files.
_FORMAT = 1
_APT_QUERY_TIMEOUT_S = 60.0
_DOWNLOAD_TIMEOUT_S = 900.0
_UNPACK_TIMEOUT_S = 300.0
_MANIFEST = "kernel.json"
_APT_ADVICE = "The guest's kernel comes by apt-get, on Debian and Ubuntu."
_LISTS_ADVICE = "Run `sudo apt-get update`, then try again."
# A meta package names the kernel of a release, and Ubuntu's kernels their modules, like this.
_VERSIONED = re.compile(r"(linux-image|linux-modules)-[0-9][a-z0-9.+-]*")
_MAX_PACKAGES = 4
# 70 MB each; one is of the guest in use, one may be of a file under work.
_KEPT_KERNELS = 3

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Package:
    """A distribution package of one version."""

    name: str
    version: str


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel.

    Attributes:
        directory: Holds the files named below; read-only for everyone.
        release: As `uname -r` tells it.
        vmlinux: ELF file.
        early: Modules for the channel, in load order, paths relative to the guest's root.
        late: All others, in load order after `early`.
        key: Changes with everything above.
    """

    directory: Path
    release: str
    vmlinux: Path
    early: tuple[str, ...]
    late: tuple[str, ...]
    key: str

    def read_module(self, path: str) -> bytes:
        """Contents of a module of `early` or `late`."""
        return (self.directory / path).read_bytes()


def generic_kernel_package() -> str:
    """Name of this distribution's generic kernel package.

    Raises:
        PrerequisiteMissing: The distribution is none that Slipway knows.
    """
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    identity, version = release.get("ID", ""), release.get("VERSION_ID", "")
    exact = DISTRIBUTIONS.get(f"{identity} {version}")
    if exact is not None:
        return exact.kernel
    for known, distribution in DISTRIBUTIONS.items():
        if known.split()[0] == identity:
            return distribution.kernel
    raise PrerequisiteMissing(
        f"there is no known kernel package for {release.get('PRETTY_NAME', 'this system')}",
        advice=f"Build the guest on one of: {SUPPORTED}; or name a package in the YAML file.",
    )


async def fetch_kernel(
    package: str,
    early: Sequence[str],
    late: Sequence[str],
    *,
    cache_dir: Path,
    refresh: bool,
    progress: Progress,
) -> Kernel:
    """The kernel of a package with the named modules and what they need.

    The newest version is looked up once and then kept, so that a start needs no network; `refresh`
    looks again. Must run under the cache's lock. A failure leaves nothing new in the cache.

    Args:
        package: A meta package or a kernel package.
        early: Module names that the channel needs.
        late: Further module names.
        cache_dir: Made if missing.
        refresh: Look for a newer package.
        progress: Called with a line for each step that takes time.

    Raises:
        PrerequisiteMissing: No apt, no package lists, no such package, no dpkg.
        Unavailable: The download failed.
        InvalidArgument: A module is unknown to this kernel.
        CorruptData: The package is not laid out as a kernel package.
        ResourceExhausted: The disk is full.
        DeadlineExceeded: apt or dpkg took too long.
    """
    if not refresh:
        cached = await asyncio.to_thread(cached_kernel, package, early, late, cache_dir=cache_dir)
        if cached is not None:
            return cached
    packages = await resolve_packages(package)
    key = _key(packages, early, late)
    directory = cache_dir / key
    if not (directory / _MANIFEST).is_file():
        await _build(packages, early, late, directory, progress)
    await asyncio.to_thread(_write_record, _record(cache_dir, package), packages)
    kernel = await asyncio.to_thread(_load, directory)
    await asyncio.to_thread(remove_unused, cache_dir, kept=_KEPT_KERNELS)
    return kernel


def cached_kernel(
    package: str, early: Sequence[str], late: Sequence[str], *, cache_dir: Path
) -> Kernel | None:
    """What `fetch_kernel` would give without looking anything up; None if it would have to.

    Raises:
        CorruptData: The cached kernel is damaged.
    """
    known = _read_record(_record(cache_dir, package))
    directory = cache_dir / _key(known, early, late)
    return _load(directory) if known and (directory / _MANIFEST).is_file() else None


async def resolve_packages(package: str) -> tuple[Package, ...]:
    """The packages with files that a kernel (meta) package stands for, as apt knows them now.

    Raises:
        PrerequisiteMissing: No apt, no package lists, or no such package.
    """
    found: list[Package] = []
    seen: set[str] = set()
    pending = [package]
    while pending and len(found) < _MAX_PACKAGES:
        name = pending.pop(0)
        if name in seen:
            continue
        seen.add(name)
        fields = await _apt_show(name)
        versioned = [match[0] for match in _VERSIONED.finditer(fields.get("Depends", ""))]
        if _VERSIONED.fullmatch(name):
            found.append(Package(name, fields.get("Version", "")))
            versioned = [other for other in versioned if other.startswith("linux-modules")]
        pending += versioned
    if not found:
        raise PrerequisiteMissing(
            f"the package {package} is no Linux kernel package", advice=_LISTS_ADVICE
        )
    return tuple(found)


async def _apt_show(name: str) -> dict[str, str]:
    try:
        text = await run_command(
            ["apt-cache", "show", "--no-all-versions", name],
            timeout_s=_APT_QUERY_TIMEOUT_S,
            advice=_APT_ADVICE,
        )
    except CommandFailed as exc:
        raise PrerequisiteMissing(f"apt knows no package {name}", advice=_LISTS_ADVICE) from exc
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition(": ")
        if separator and not line.startswith(" "):
            fields.setdefault(key, value)
    if "Version" not in fields:
        raise PrerequisiteMissing(f"apt knows no package {name}", advice=_LISTS_ADVICE)
    return fields


async def _build(
    packages: tuple[Package, ...],
    early: Sequence[str],
    late: Sequence[str],
    directory: Path,
    progress: Progress,
) -> None:
    parent = directory.parent
    await asyncio.to_thread(parent.mkdir, parents=True, exist_ok=True)
    scratch = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=".kernel-", dir=parent))
    try:
        names = ", ".join(f"{package.name} {package.version}" for package in packages)
        progress(f"downloading {names}")
        archives = await _download(packages, scratch)
        progress("unpacking the kernel")
        tree = scratch / "tree"
        for archive in archives:
            await _unpack(archive, tree)
        await asyncio.to_thread(_publish, tree, early, late, directory, scratch)
    except OSError as exc:
        raise ResourceExhausted(
            f"the guest's kernel cannot be written to {parent}: {exc.strerror}",
            advice="Free about 600 MB of disk space there, then try again.",
        ) from exc
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)


async def _download(packages: tuple[Package, ...], directory: Path) -> list[Path]:
    try:
        await run_command(
            ["apt-get", "download", "-q", *(f"{p.name}={p.version}" for p in packages)],
            timeout_s=_DOWNLOAD_TIMEOUT_S,
            advice=_APT_ADVICE,
            directory=directory,
        )
    except CommandFailed as exc:
        raise Unavailable(
            f"the guest's kernel cannot be downloaded: {exc.output}",
            advice=f"Check the network. {_LISTS_ADVICE}",
        ) from exc
    archives = await asyncio.to_thread(lambda: sorted(directory.glob("*.deb")))
    if len(archives) != len(packages):
        raise Unavailable("apt-get downloaded fewer packages than asked", advice=_LISTS_ADVICE)
    return archives


async def _unpack(archive: Path, tree: Path) -> None:
    try:
        await run_command(
            ["dpkg-deb", "--extract", archive, tree],
            timeout_s=_UNPACK_TIMEOUT_S,
            advice=_APT_ADVICE,
        )
    except CommandFailed as exc:
        raise CorruptData(f"{archive.name} cannot be unpacked: {exc.output}") from exc


def _publish(
    tree: Path, early: Sequence[str], late: Sequence[str], directory: Path, scratch: Path
) -> None:
    images = sorted(tree.glob("boot/vmlinuz-*"))
    # Distributions of today keep /lib in /usr, in the package or by a link.
    releases = sorted({*tree.glob("lib/modules/*"), *tree.glob("usr/lib/modules/*")})
    if len(images) != 1 or len(releases) != 1:
        raise CorruptData("the kernel package has no single kernel with modules in it")
    modules = ModuleTree(releases[0])
    all_modules = modules.load_order([*early, *late])
    early_names = {module.name for module in modules.load_order(early)}
    staging = scratch / "staging"
    vmlinux = staging / "vmlinux"
    write_durably(vmlinux, extract_vmlinux(images[0].read_bytes()))
    for module in all_modules:
        write_durably(staging / module.path, module.data)
    manifest = {
        "release": modules.release,
        "early": [module.path for module in all_modules if module.name in early_names],
        "late": [module.path for module in all_modules if module.name not in early_names],
    }
    write_durably(staging / _MANIFEST, json.dumps(manifest, indent=1).encode())
    publish_directory(staging, directory)


def _load(directory: Path) -> Kernel:
    try:
        manifest = json.loads((directory / _MANIFEST).read_bytes())
        mark_used(directory)
        return Kernel(
            directory=directory,
            release=manifest["release"],
            vmlinux=directory / "vmlinux",
            early=tuple(manifest["early"]),
            late=tuple(manifest["late"]),
            key=directory.name,
        )
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise CorruptData(
            f"the cached kernel in {directory} is damaged: {exc}",
            advice=f"Remove {directory}; it is built again.",
        ) from exc


def _key(packages: tuple[Package, ...], early: Sequence[str], late: Sequence[str]) -> str:
    inputs = [
        _FORMAT,
        [[package.name, package.version] for package in packages],
        list(early),
        list(late),
    ]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]


def _record(cache_dir: Path, package: str) -> Path:
    return cache_dir / f"{package}.resolved.json"


def _read_record(record: Path) -> tuple[Package, ...]:
    """What the package name stood for when it was looked up; empty if never."""
    try:
        return tuple(Package(str(n), str(v)) for n, v in json.loads(record.read_bytes()))
    except (OSError, ValueError, TypeError):
        return ()


def _write_record(record: Path, packages: tuple[Package, ...]) -> None:
    pairs = [[package.name, package.version] for package in packages]
    write_durably(record, json.dumps(pairs).encode())
