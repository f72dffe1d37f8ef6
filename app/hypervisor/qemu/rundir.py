"""A VM's run directory: all that a later engine needs to take the VM over.

`<run root>/<vm id>/`, mode 0700, the engine's: spec.json, process.json (a hint), lock (held by
the QEMU process for its life: the proof), qmp.sock, channel.sock, channel.lock, the pipes and
bounded files of console and stderr, and exit.json once the VM has ended. QEMU itself opens none
of them.
"""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.core.errors import Conflict, CorruptData, ResourceExhausted
from app.domain.vm import VmEndReason
from app.hypervisor.port import DiskSpec, VmExit, VmSpec

log = logging.getLogger(__name__)

LISTEN_BACKLOG = 1  # QEMU serves one client at a time

_RUNTIME_NAMES = ("qmp.sock", "channel.sock", "channel.lock", "console.pipe", "stderr.pipe")


@dataclass(frozen=True)
class ProcessRecord:
    """What is written about the process; checked against the lock before it is believed."""

    pid: int
    start_ticks: int
    started_at_ns: int


class RunDirectory:
    """Paths and small files of one VM; every method blocks for a moment: call them in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._directory_fd = -1

    @classmethod
    def create(cls, path: Path) -> "RunDirectory":
        """Make the directory.

        Raises:
            Conflict: It exists.
            ResourceExhausted: The disk is full.
        """
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
        except FileExistsError as exc:
            raise Conflict(f"A VM {path.name} exists already") from exc
        except OSError as exc:
            raise ResourceExhausted(f"The run directory {path} cannot be made: {exc}") from exc
        return cls(path)

    @property
    def id(self) -> str:
        """The VM's id."""
        return self.path.name

    @property
    def console_path(self) -> Path:
        """Bounded file of the serial console."""
        return self.path / "console.log"

    @property
    def stderr_path(self) -> Path:
        """Bounded file of QEMU's own messages."""
        return self.path / "stderr.log"

    def address(self, name: str) -> str:
        """Path of a socket that fits into sun_path (107 bytes) however deep the directory lies."""
        if self._directory_fd < 0:
            self._directory_fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._directory_fd}/{name}"

    def listen(self, name: str) -> socket.socket:
        """A listening unix socket in the directory, for QEMU to inherit."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(self.address(name))
            (self.path / name).chmod(0o600)
            listener.listen(LISTEN_BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener

    def make_pipe(self, name: str) -> tuple[int, int]:
        """A named pipe; returns its read and write ends, both non-blocking."""
        path = self.path / name
        os.mkfifo(path, 0o600)
        read_fd = self.open_pipe(name)
        try:
            return read_fd, os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except BaseException:
            os.close(read_fd)
            raise

    def open_pipe(self, name: str) -> int:
        """The read end of a pipe that QEMU writes."""
        return os.open(self.path / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def take_lock(self, name: str = "lock") -> int | None:
        """An exclusive lock as a descriptor, or None while another process holds it."""
        fd = os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        return fd

    def is_locked(self) -> bool:
        """Whether a process of this VM lives."""
        fd = self.take_lock()
        if fd is None:
            return True
        os.close(fd)
        return False

    def find_holder(self) -> int | None:
        """Process id of the QEMU that holds the lock, by /proc; None if none can be seen."""
        wanted = (self.path / "lock").stat()
        marker = f"slipway-{self.id}".encode()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if (
                    entry.name.isdecimal()
                    and marker in (entry / "cmdline").read_bytes().split(b"\0")
                    and any(os.path.samestat(fd.stat(), wanted) for fd in (entry / "fd").iterdir())
                ):
                    return int(entry.name)
        return None

    def write_spec(self, spec: VmSpec) -> None:
        """Record what the VM is made from."""
        self._write("spec.json", asdict(spec))

    def read_spec(self) -> VmSpec:
        """What the VM was made from.

        Raises:
            CorruptData: It is missing or damaged.
        """
        try:
            return spec_from_json(json.loads((self.path / "spec.json").read_text()))
        except (OSError, ValueError, TypeError, KeyError) as exc:
            raise CorruptData(f"The record of VM {self.id} is not readable: {exc}") from exc

    def mark_restoring(self) -> None:
        """Record that the VM is a clone which is not whole yet: nobody shall adopt it."""
        (self.path / "restoring").touch(mode=0o600)

    def mark_restored(self) -> None:
        """The clone runs."""
        (self.path / "restoring").unlink(missing_ok=True)

    @property
    def is_restoring(self) -> bool:
        """Whether an engine died while it made this clone."""
        return (self.path / "restoring").exists()

    def write_process(self, record: ProcessRecord) -> None:
        """Record the process."""
        self._write("process.json", asdict(record))

    def read_process(self) -> ProcessRecord | None:
        """The recorded process, or None."""
        try:
            return ProcessRecord(**json.loads((self.path / "process.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write_exit(self, vm_exit: VmExit) -> None:
        """Record how the VM ended."""
        self._write("exit.json", {"reason": vm_exit.reason.value, "detail": vm_exit.detail})

    def read_exit(self) -> VmExit | None:
        """How the VM ended, if an engine recorded it."""
        try:
            values = json.loads((self.path / "exit.json").read_text())
            return VmExit(VmEndReason(values["reason"]), values["detail"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _write(self, name: str, values: dict[str, Any]) -> None:
        temporary = self.path / f"{name}.new"
        temporary.write_text(json.dumps(values, default=str))
        temporary.replace(self.path / name)

    def remove_runtime(self) -> None:
        """Remove sockets and pipes, which mean nothing once the process has ended."""
        for name in _RUNTIME_NAMES:
            (self.path / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the whole directory."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)

    def close(self) -> None:
        """Let go of the directory."""
        if self._directory_fd >= 0:
            os.close(self._directory_fd)
            self._directory_fd = -1


def spec_from_json(values: dict[str, Any]) -> VmSpec:
    """A spec written by `asdict`; raises KeyError, TypeError or ValueError if it is none."""
    disks = tuple(DiskSpec(**disk | {"path": Path(disk["path"])}) for disk in values["disks"])
    paths = {name: Path(values[name]) for name in ("kernel", "initrd")}
    return VmSpec(**values | paths | {"disks": disks})
