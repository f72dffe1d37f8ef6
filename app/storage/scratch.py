"""Scratch disks: what a container writes, one sparse ext4 image each.

    <root>/<container id>.ext4          a container's disk
    <root>/.template-<format>-<size>    an empty filesystem, made once per size and copied

The host formats a template and never mounts anything: once a guest has written a disk, only a
guest may read it.
"""

import asyncio
import errno
import os
import re
import subprocess
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from app.core.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    PrerequisiteMissing,
    ResourceExhausted,
    SlipwayError,
    Unavailable,
)
from app.core.units import MIB
from app.storage.sparse_copy import copy_sparse

T = TypeVar("T")

SIZE_MIN_BYTES = 64 * MIB
SIZE_MAX_BYTES = 16 * 1024**4  # ext4 with 4 KiB blocks
FORMAT_TIMEOUT_S = 60.0
FORMAT = "1"  # part of the template's name: change it with the options below
INODES_MIN = 16_384
BYTES_PER_INODE = 65_536
_UUID = "736c6970-7761-7900-0000-000000000001"
_FEATURES = (
    "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,"
    "huge_file,dir_nlink,extra_isize,metadata_csum"
)
SYSTEM_PATH = "/usr/sbin:/sbin"  # mkfs is there, and often not in a user's PATH
_SUFFIX = ".ext4"
_ID_RE = re.compile(r"[a-z0-9]{1,64}")


class ScratchDisks:
    """The scratch disks in one directory, which this makes at first use."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._formatting = threading.Lock()

    def path(self, container_id: str) -> Path:
        """Where that container's disk lies or would lie.

        Raises:
            InvalidArgument: Not an id of lower-case letters and digits.
        """
        if _ID_RE.fullmatch(container_id) is None:
            raise InvalidArgument(f"{container_id!r} is no container id", field="container_id")
        return self._root / f"{container_id}{_SUFFIX}"

    async def ensure(self, container_id: str, size_bytes: int) -> Path:
        """The container's disk, made if it has none; raises as `create`, but for Conflict."""
        path = self.path(container_id)
        checked_bytes = _checked_size(size_bytes)
        return await self._run(
            lambda: path if path.exists() else self._create(path, checked_bytes),
            f"making the scratch disk {path.name}",
        )

    async def create(self, container_id: str, size_bytes: int) -> Path:
        """Make an empty disk of that size (rounded up to a MiB); some hundred KiB are allocated.

        After a failure nothing of it is left. The work is some milliseconds; a cancelled caller
        leaves a finished disk, which `remove()` or `remove_orphans()` finds.

        Raises:
            Conflict: The container has a disk.
            InvalidArgument: Impossible size or id.
            PrerequisiteMissing: No mkfs.ext4.
            ResourceExhausted: The host's disk is full.
            Unavailable: The directory can't be written.
        """
        path = self.path(container_id)
        checked_bytes = _checked_size(size_bytes)
        return await self._run(
            lambda: self._create(path, checked_bytes), f"making the scratch disk {path.name}"
        )

    def _create(self, path: Path, size_bytes: int) -> Path:
        template = self._template(size_bytes)
        temporary = self._root / f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp"
        try:
            with template.open("rb") as source, temporary.open("xb") as target:
                os.fchmod(target.fileno(), 0o600)
                copy_sparse(source.fileno(), target.fileno())
                os.fsync(target.fileno())
            os.link(temporary, path)  # unlike a rename, refuses to replace
        except FileExistsError as error:
            raise Conflict(f"the container has a scratch disk already: {path}") from error
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def _template(self, size_bytes: int) -> Path:
        path = self._root / f".template-{FORMAT}-{size_bytes}"
        with self._formatting:
            if not path.exists():
                self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
                temporary = path.with_name(f"{path.name}.tmp")
                try:
                    _format(temporary, size_bytes)
                    temporary.replace(path)
                finally:
                    temporary.unlink(missing_ok=True)
        return path

    async def remove(self, container_id: str) -> int:
        """Delete a disk; returns the bytes given back, 0 if there was none. Idempotent.

        Raises:
            Unavailable: The file can't be deleted.
        """
        path = self.path(container_id)
        return await self._run(lambda: _unlink(path), f"removing the scratch disk {path.name}")

    async def used_bytes(self, container_id: str) -> int:
        """Bytes that a disk really takes on the host.

        Raises:
            NotFound: The container has no disk.
        """
        path = self.path(container_id)
        try:
            return (await asyncio.to_thread(path.stat)).st_blocks * 512
        except FileNotFoundError as error:
            raise NotFound(f"no scratch disk of container {container_id}") from error

    async def remove_orphans(self, known_ids: Collection[str]) -> list[str]:
        """Delete the disks of unknown containers and what a crash left half-made.

        Call it before anything else makes disks here. Returns the ids removed.

        Raises:
            Unavailable: A file can't be deleted.
        """
        known = set(known_ids)
        return await self._run(lambda: self._remove_orphans(known), "removing old scratch disks")

    def _remove_orphans(self, known_ids: set[str]) -> list[str]:
        removed = []
        for path in sorted(self._root.iterdir()) if self._root.is_dir() else ():
            if path.name.startswith("."):
                if path.suffix == ".tmp":
                    path.unlink()
            elif path.suffix == _SUFFIX and path.stem not in known_ids:
                path.unlink()
                removed.append(path.stem)
        return removed

    async def _run(self, function: Callable[[], T], what: str) -> T:
        try:
            return await asyncio.to_thread(function)
        except OSError as error:
            raise _disk_error(error, what) from error


def _checked_size(size_bytes: int) -> int:
    """Rounded up to a MiB, if it is possible at all."""
    if not SIZE_MIN_BYTES <= size_bytes <= SIZE_MAX_BYTES:
        raise InvalidArgument(
            f"a scratch disk can't have {size_bytes:,} bytes",
            field="size_bytes",
            advice=f"Choose between {SIZE_MIN_BYTES:,} and {SIZE_MAX_BYTES:,} bytes.",
        )
    return -(-size_bytes // MIB) * MIB


def _unlink(path: Path) -> int:
    try:
        freed_bytes = path.stat().st_blocks * 512
        path.unlink()
    except FileNotFoundError:
        return 0
    return freed_bytes


def _disk_error(error: OSError, what: str) -> SlipwayError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(
            f"{what}: no space left on the disk",
            advice="Remove unused containers or images, or move the data directory to a larger "
            "disk.",
        )
    return Unavailable(
        f"{what}: {error.strerror or error}",
        advice="Check that the data directory is on a healthy disk and belongs to Slipway's user.",
    )


def _format(path: Path, size_bytes: int) -> None:
    """Write an empty ext4 to a new sparse file; the same bytes for the same size and tools.

    Small journal (kept: a stopped container is started again after crashes), few inodes, tables
    left to be zeroed never: the file reads as zeros there already.
    """
    with path.open("wb") as file:
        file.truncate(size_bytes)
    inodes = max(INODES_MIN, size_bytes // BYTES_PER_INODE)
    extended = f"lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0,hash_seed={_UUID}"
    command = [
        "mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256", "-N", str(inodes), "-m", "0",
        "-J", "size=4", "-O", _FEATURES, "-E", extended, "-U", _UUID, "-L", "scratch", str(path),
    ]  # fmt: skip
    environment = {
        "PATH": f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}",
        "LC_ALL": "C",
        "MKE2FS_CONFIG": os.devnull,  # the machine's own defaults don't matter
        "E2FSPROGS_FAKE_TIME": "1",
    }
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise PrerequisiteMissing(
            "mkfs.ext4, which formats scratch disks, is not installed",
            advice="Install the package e2fsprogs.",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"mkfs.ext4 took longer than {FORMAT_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        text = " ".join(done.stderr.split())
        if "No space left on device" in text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise Unavailable(f"mkfs.ext4 failed: {text[-500:] or done.returncode}")
