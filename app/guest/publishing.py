"""Puts finished files into a cache so that readers see all of them or none."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path


def write_durably(path: Path, data: bytes) -> None:
    """Write or replace a file in one step; after a crash it is the old one or the new one.

    Missing parent directories are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
        Path(temporary).rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def publish_directory(staging: Path, target: Path) -> None:
    """Rename a finished directory into place, replacing what an interrupted run left there.

    Afterwards `staging` is gone; both must be on one file system.
    """
    staging.chmod(0o755)
    if target.exists():
        shutil.rmtree(target)
    staging.rename(target)
    descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mark_used(directory: Path) -> None:
    """Note that a published directory is in use, for `remove_unused`; who may not, does not."""
    with contextlib.suppress(PermissionError):
        os.utime(directory)


def remove_unused(parent: Path, *, kept: int) -> None:
    """Remove all but the published directories that were used last; open files stay readable."""
    published = [path for path in parent.iterdir() if path.is_dir() and path.name[0] != "."]
    published.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in published[kept:]:
        shutil.rmtree(path, ignore_errors=True)
