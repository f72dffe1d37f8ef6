"""Bringing one QEMU process up, step by step, each with its undoing."""

import contextlib
import os
import shutil
import stat
import time
from contextlib import ExitStack
from pathlib import Path

from app.core.errors import InvalidArgument, NotFound, ResourceExhausted, Unavailable
from app.hypervisor.port import (
    CONSOLE_HEAD_BYTES,
    CONSOLE_LIMIT_BYTES,
    DiskSpec,
    VmSpec,
)
from app.hypervisor.qemu.arguments import Descriptors, qemu_arguments
from app.hypervisor.qemu.bounded import BoundedFile, PipeDrain
from app.hypervisor.qemu.identity import Identity, kvm_groups
from app.hypervisor.qemu.process import VmProcess, spawn
from app.hypervisor.qemu.rundir import ProcessRecord, RunDirectory
from app.hypervisor.qemu.saved import SavedFiles
from app.hypervisor.qemu.standin import open_stand_ins
from app.hypervisor.qemu.tsc import host_tsc_khz

STDERR_LIMIT_BYTES = 64 * 1024


def open_image(path: Path, what: str, *, read_only: bool) -> int:
    """Open a file for QEMU; blocking.

    Raises:
        NotFound: It does not exist.
        InvalidArgument: It is no regular file and no block device.
        Unavailable: The host refuses.
    """
    try:
        fd = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise NotFound(f"The {what} does not exist: {path}") from exc
    except OSError as exc:
        raise Unavailable(f"The {what} cannot be opened: {path}: {exc.strerror}") from exc
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        os.close(fd)
        raise InvalidArgument(f"The {what} is neither a file nor a block device: {path}")
    return fd


def console_drain(directory: RunDirectory, fd: int) -> PipeDrain:
    """What empties a VM's console pipe."""
    return PipeDrain(fd, console_file(directory))


def console_file(directory: RunDirectory) -> BoundedFile:
    """A VM's console."""
    return BoundedFile(
        directory.console_path, head_bytes=CONSOLE_HEAD_BYTES, limit_bytes=CONSOLE_LIMIT_BYTES
    )


def stderr_file(directory: RunDirectory) -> BoundedFile:
    """The messages of a VM's QEMU."""
    return BoundedFile(
        directory.stderr_path,
        head_bytes=STDERR_LIMIT_BYTES // 4,
        limit_bytes=STDERR_LIMIT_BYTES,
    )


class Launch:
    """One attempt to start a VM; its methods block and are run in threads, one after the other.

    After `start()` the fields are set and the caller owns them; `undo()` before that, or instead,
    leaves nothing.
    """

    def __init__(
        self,
        run_root: Path,
        spec: VmSpec,
        *,
        binary: str,
        accelerator: str,
        identity: Identity,
        template: SavedFiles | None = None,
        base_bytes: int | None = None,
    ) -> None:
        self._path = run_root / spec.id
        self._spec = spec
        self._binary = binary
        self._accelerator = accelerator
        self._identity = identity
        self._template = template
        self._base_bytes = base_bytes
        self._undo = ExitStack()
        self._inherited = ExitStack()  # what only QEMU keeps
        self.directory: RunDirectory
        self.process: VmProcess
        self.record: ProcessRecord
        self.console: PipeDrain
        self.stderr: PipeDrain
        self.saved: SavedFiles | None = None  # of a VM for_template: what it is saved to
        self.state_fd: int | None = None  # of a clone: the saved state's number in its QEMU

    def start(self) -> None:
        """Do it all.

        Raises:
            As `Hypervisor.create()`; what is half done is left for `undo()`.
        """
        try:
            with self._inherited:
                self._start()
        except OSError as exc:
            raise ResourceExhausted(
                f"VM {self._spec.id} could not be set up: {exc.strerror or exc}",
                advice="Check the free disk space and the limit of open files.",
            ) from exc

    def _start(self) -> None:
        self.directory = RunDirectory.create(self._path)
        self._undo.callback(self.directory.remove)
        self.directory.write_spec(self._spec)
        if self._template is not None:
            self.directory.mark_restoring()
        console_read, console_write = self._pipe("console.pipe")
        stderr_read, stderr_write = self._pipe("stderr.pipe")
        self.console = console_drain(self.directory, console_read)
        self.directory.console_path.touch(mode=0o600)
        self.stderr = PipeDrain(stderr_read, stderr_file(self.directory))
        descriptors = self._descriptors(console_write)
        started_at_ns = time.time_ns()
        self.process = spawn(
            qemu_arguments(
                self._binary,
                self._spec,
                accelerator=self._accelerator,
                descriptors=descriptors,
                base_bytes=self._base_bytes,
                tsc_khz=host_tsc_khz() if self._accelerator == "tcg" else None,
            ),
            identity=self._identity,
            groups=kvm_groups(self._identity) if self._accelerator == "kvm" else [],
            # With the lock and the pipes' read ends, which QEMU only keeps open.
            descriptors=(*descriptors.numbers(), self._lock(), console_read, stderr_read),
            stderr_fd=stderr_write,
        )
        self._undo.callback(self.process.close)
        self._undo.callback(self.process.kill_and_reap)
        self.record = ProcessRecord(self.process.pid, self.process.ticks, started_at_ns)
        self.directory.write_process(self.record)

    def undo(self) -> None:
        """Take back what was done."""
        self._undo.close()

    def _pipe(self, name: str) -> tuple[int, int]:
        read_fd, write_fd = self.directory.make_pipe(name)
        self._undo.callback(_close_quietly, read_fd)
        self._inherited.callback(os.close, write_fd)
        return read_fd, write_fd

    def _lock(self) -> int:
        fd = self.directory.take_lock()
        if fd is None:
            raise Unavailable(f"The run directory of VM {self._spec.id} is locked")
        self._inherited.callback(os.close, fd)
        return fd

    def _descriptors(self, console_fd: int) -> Descriptors:
        memory_fd, kept = self._memory()
        kernel_fd, initrd_fd = self._boot_files()
        return Descriptors(
            monitor=self._listen("qmp.sock"),
            channel=self._listen("channel.sock"),
            console=console_fd,
            kernel=kernel_fd,
            initrd=initrd_fd,
            disks=tuple(self._disk(disk) for disk in self._spec.disks),
            memory=memory_fd,
            state=self.state_fd,
            kept=kept,
        )

    def _memory(self) -> tuple[int | None, tuple[int, ...]]:
        """The memory's descriptor and what is kept; sets `saved` and `state_fd`."""
        if self._spec.for_template:
            self.saved = SavedFiles.make(self._spec.memory_bytes)
            self._undo.callback(self.saved.close)
            return self.saved.memory_fd, ()
        if self._template is None:
            return None, ()
        # Own numbers, since the template may be closed meanwhile.
        held = self._template.duplicate()
        self._inherited.callback(held.close)
        self.state_fd = held.open_state()
        self._inherited.callback(os.close, self.state_fd)
        return held.memory_fd, (held.state_fd,)

    def _boot_files(self) -> tuple[int, int]:
        if self._template is not None:
            files = open_stand_ins()
            for fd in files:
                self._inherited.callback(os.close, fd)
            return files
        return (
            self._boot_file(self._spec.kernel, "kernel"),
            self._boot_file(self._spec.initrd, "initrd"),
        )

    def _listen(self, name: str) -> int:
        return self._inherited.enter_context(self.directory.listen(name)).fileno()

    def _disk(self, disk: DiskSpec) -> int:
        fd = open_image(disk.path, f"image of disk {disk.serial}", read_only=disk.read_only)
        self._inherited.callback(os.close, fd)
        return fd

    def _boot_file(self, path: Path, what: str) -> int:
        """QEMU opens kernel and initrd by name: /proc/self/fd needs its user to have the right.

        Where it has not, it gets a copy in memory, which anybody who has the descriptor can open.
        """
        fd = open_image(path, what, read_only=True)
        self._inherited.callback(os.close, fd)
        if self._identity.can_read(os.fstat(fd)):
            return fd
        copy = os.memfd_create(f"slipway-{what}", os.MFD_CLOEXEC)
        self._inherited.callback(os.close, copy)
        with open(fd, "rb", closefd=False) as source, open(copy, "wb", closefd=False) as target:
            shutil.copyfileobj(source, target)
        return copy


def _close_quietly(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)
