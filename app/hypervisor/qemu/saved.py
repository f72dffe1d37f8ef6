"""The two anonymous files of a template: its memory, and the state of its CPUs and devices.

They exist only as descriptors. Once sealed their bytes are the same until the last descriptor is
gone, whoever has one: no process can write, map writable, punch holes into or resize them.
"""

import contextlib
import fcntl
import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_READ_SIZE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class FileMark:
    """Which anonymous file it is, for as long as this host is up."""

    device: int
    inode: int
    size_bytes: int

    @classmethod
    def of(cls, fd: int) -> "FileMark":
        """The mark of an open file."""
        status = os.fstat(fd)
        return cls(status.st_dev, status.st_ino, status.st_size)


@dataclass(frozen=True)
class SavedMark:
    """Enough to know both files again; `boot_id` since inode numbers start anew with the host."""

    boot_id: str
    memory: FileMark
    state: FileMark
    state_sha256: str

    def to_json(self) -> dict[str, object]:
        """For the template's record."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, object]) -> "SavedMark":
        """Raises KeyError, TypeError or ValueError if it is none."""
        memory, state = values["memory"], values["state"]
        if not isinstance(memory, dict) or not isinstance(state, dict):
            raise TypeError("a file's mark is an object")
        return cls(
            str(values["boot_id"]),
            FileMark(**memory),
            FileMark(**state),
            str(values["state_sha256"]),
        )


class SavedFiles:
    """Owner of a descriptor of each; its methods block for moments."""

    def __init__(self, memory_fd: int, state_fd: int) -> None:
        self.memory_fd = memory_fd
        self.state_fd = state_fd

    @classmethod
    def make(cls, memory_bytes: int) -> Self:
        """Empty ones, for a VM to be saved to."""
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        memory_fd = os.memfd_create("slipway-template", flags)
        try:
            os.ftruncate(memory_fd, memory_bytes)
            state_fd = os.memfd_create("slipway-state", flags)
        except BaseException:
            os.close(memory_fd)
            raise
        return cls(memory_fd, state_fd)

    def duplicate(self) -> "SavedFiles":
        """Other descriptors of the same files."""
        memory_fd = fcntl.fcntl(self.memory_fd, fcntl.F_DUPFD_CLOEXEC, 0)
        try:
            return SavedFiles(memory_fd, fcntl.fcntl(self.state_fd, fcntl.F_DUPFD_CLOEXEC, 0))
        except BaseException:
            os.close(memory_fd)
            raise

    def open_state(self) -> int:
        """The state for one reader, from its beginning: a duplicate would share its position."""
        return os.open(f"/proc/self/fd/{self.state_fd}", os.O_RDONLY | os.O_CLOEXEC)

    def seal(self) -> None:
        """Make both unchangeable; OSError while somebody has the memory mapped writable."""
        for fd in (self.memory_fd, self.state_fd):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)

    @property
    def is_sealed(self) -> bool:
        """Whether nobody can write them any more; False too if they are closed."""
        try:
            return all(
                fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
                for fd in (self.memory_fd, self.state_fd)
            )
        except (OSError, ValueError):  # ValueError: closed, there is no descriptor
            return False

    @property
    def used_bytes(self) -> int:
        """Host memory they occupy; 0 once closed."""
        with contextlib.suppress(OSError):
            return sum(os.fstat(fd).st_blocks * 512 for fd in (self.memory_fd, self.state_fd))
        return 0

    def mark(self) -> SavedMark:
        """By what they are known again."""
        return SavedMark(
            boot_id(), FileMark.of(self.memory_fd), FileMark.of(self.state_fd), self._state_sha256()
        )

    def _state_sha256(self) -> str:
        digest, offset = hashlib.sha256(), 0
        while data := os.pread(self.state_fd, _READ_SIZE_BYTES, offset):
            digest.update(data)
            offset += len(data)
        return digest.hexdigest()

    def close(self) -> None:
        """Let go; idempotent."""
        for fd in (self.memory_fd, self.state_fd):
            if fd >= 0:
                os.close(fd)
        self.memory_fd = self.state_fd = -1


def boot_id() -> str:
    """Differs after each start of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def find_held(pid: int, mark: SavedMark) -> SavedFiles | None:
    """The files of that mark among a process's descriptors; None unless both are, unchanged."""
    if mark.boot_id != boot_id():
        return None
    found: dict[FileMark, int] = {}
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                status = entry.stat()
                one = FileMark(status.st_dev, status.st_ino, status.st_size)
                if one in (mark.memory, mark.state) and one not in found:
                    # Writing is refused by the seals; sealing tools want a writable descriptor.
                    found[one] = os.open(entry, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        pass
    files = SavedFiles(found.get(mark.memory, -1), found.get(mark.state, -1))
    if len(found) == 2 and files.is_sealed and files.mark() == mark:
        return files
    files.close()
    return None
