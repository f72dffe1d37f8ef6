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
