"""The data directory: made private, and held by one engine at a time."""

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from app.core.errors import Conflict, Unavailable

LOCK_NAME = "engine.lock"
LOCK_TRIES = 5  # `find_engine` of another process holds it for a moment
LOCK_RETRY_S = 0.05


@dataclass(frozen=True)
class EngineAddress:
    """Where the engine that holds a data directory answers.

    Attributes:
        pid: Its process id; 0 if it died between taking the lock and writing it down.
        url: Base URL of its dashboard and REST API; empty until it serves.
    """

    pid: int
    url: str


class DataDirectoryLock:
    """Held while it is open; the kernel lets go when the process ends, however it ends.

    The descriptor is close-on-exec: a VM that inherited it would lock the next engine out.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, data_dir: Path) -> Self:
        """Make the directory if needed (mode 0700) and lock it; blocks for LOCK_TRIES at most.

        Raises:
            Conflict: Another process holds it; nothing was changed.
            Unavailable: It can't be made or written.
        """
        make_data_directory(data_dir)
        try:
            descriptor = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise _unusable(data_dir, exc) from exc
        if not _try_lock(descriptor):
            holder = _read(descriptor)
            os.close(descriptor)
            who = f"another engine (process {holder.pid})" if holder.pid else "another engine"
            where = f" at {holder.url}" if holder.url else ""
            raise Conflict(
                f"The data directory {data_dir} is in use by {who}{where}.",
                advice="Use that one, stop it, or set SLIPWAY_DATA_DIR (and SLIPWAY_PORT) to run "
                "a second engine beside it.",
            )
        lock = cls(data_dir / LOCK_NAME, descriptor)
        lock.publish("")
        return lock

    def publish(self, url: str) -> None:
        """Write down who holds the lock, for `find_engine` and for error messages."""
        content = json.dumps({"pid": os.getpid(), "url": url}).encode()
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))

    def close(self) -> None:
        """Let go. The file stays: removing it would let two engines lock two files."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def make_data_directory(data_dir: Path) -> None:
    """Make the directory, readable by its owner only, if it does not exist.

    Raises:
        Unavailable: It can't be made.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise _unusable(data_dir, exc) from exc


def _unusable(data_dir: Path, error: OSError) -> Unavailable:
    return Unavailable(
        f"The data directory {data_dir} can't be used: {error.strerror}.",
        advice="Correct its permissions, or set SLIPWAY_DATA_DIR to another directory.",
    )


def _try_lock(descriptor: int) -> bool:
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_RETRY_S)
        else:
            return True
    return False


def _read(descriptor: int) -> EngineAddress:
    try:
        content = json.loads(os.pread(descriptor, 4096, 0))
        return EngineAddress(pid=int(content["pid"]), url=str(content["url"]))
    except (ValueError, KeyError, TypeError):
        return EngineAddress(pid=0, url="")


def find_engine(data_dir: Path) -> EngineAddress | None:
    """The engine that holds the data directory now, or None.

    Raises:
        Unavailable: The lock file can't be read.
    """
    try:
        descriptor = os.open(data_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise Unavailable(
            f"The lock of the data directory {data_dir} can't be read: {exc.strerror}.",
            advice="Run as the user that runs the engine.",
        ) from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)
