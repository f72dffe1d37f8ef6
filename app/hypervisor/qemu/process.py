"""A QEMU process: spawned in its own session, watched and signalled by pidfd.

It may be a child of this engine or of an earlier one: the pidfd tells the end of either, the
exit status only of a child. It is never tied to the engine's life.
"""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from app.core.errors import ResourceExhausted, Unavailable
from app.hypervisor.qemu.identity import Identity

KILL_DEADLINE_S = 5.0
OOM_SCORE_ADJ = 300  # the host's OOM killer takes a VM before the engine and before the rest

_START_TIME_FIELD = 21  # of /proc/PID/stat, counted from 0 (proc(5): starttime)
_UTIME_FIELD, _STIME_FIELD = 13, 14


class _Outliving(subprocess.Popen[bytes]):
    """A Popen that does not complain when it is dropped: the process outlives the engine."""

    def __del__(self) -> None:  # Popen's own would warn and keep the object in a global list
        pass


@dataclass(frozen=True)
class ExitStatus:
    """How a process ended; both None if it was not our child."""

    exit_code: int | None = None
    signal: int | None = None


def start_ticks(pid: int) -> int | None:
    """Start time of a process in clock ticks since the host booted; None if there is none."""
    fields = _stat_fields(pid)
    return int(fields[_START_TIME_FIELD]) if fields else None


def cpu_ns(pid: int) -> int | None:
    """CPU time that all threads of a process used so far; None if there is none."""
    fields = _stat_fields(pid)
    if not fields:
        return None
    ticks = int(fields[_UTIME_FIELD]) + int(fields[_STIME_FIELD])
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def pss_bytes(pid: int) -> tuple[int, int] | None:
    """Proportional set size from smaps_rollup, all and shared memory; None if there is no process.

    The one shared memory that a VM has is its template's, as far as it has not written to it.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    kib = {words[0]: int(words[1]) for line in text.splitlines()[1:] if (words := line.split())}
    return (kib["Pss:"] * 1024, kib["Pss_Shmem:"] * 1024) if "Pss:" in kib else None


def _stat_fields(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The command stands in parentheses and may itself hold spaces and parentheses.
    return ["", "", *text[text.rindex(")") + 2 :].split()]


@dataclass
class VmProcess:
    """A process that we hold by pidfd."""

    pid: int
    ticks: int
    pidfd: int
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    status: ExitStatus = field(default_factory=ExitStatus)

    @classmethod
    def hold(cls, pid: int, ticks: int) -> "VmProcess | None":
        """Take hold of the process with that id if it is the one that started then."""
        try:
            pidfd = os.pidfd_open(pid)
        except (ProcessLookupError, ValueError, OverflowError):
            return None
        # Read after the pidfd is there: it names the same process from now on.
        if start_ticks(pid) != ticks:
            os.close(pidfd)
            return None
        return cls(pid, ticks, pidfd)

    def watch(self) -> None:
        """Set `exited` when the process ends; needs a running loop."""
        asyncio.get_running_loop().add_reader(self.pidfd, self._on_exit)

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self.pidfd)
        self.status = self.reap()
        self.exited.set()

    def reap(self) -> ExitStatus:
        """Take the exit status of an ended child, so that no zombie stays."""
        try:
            info = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return ExitStatus()
        if info is None:
            return ExitStatus()
        if info.si_code == os.CLD_EXITED:
            return ExitStatus(exit_code=info.si_status)
        return ExitStatus(signal=info.si_status)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; none is sent to a process that has ended."""
        if self.pidfd < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def kill_and_reap(self) -> None:
        """SIGKILL and wait for the end; blocking, milliseconds."""
        self.send(signal.SIGKILL)
        select.select([self.pidfd], [], [], KILL_DEADLINE_S)
        self.reap()

    def close(self) -> None:
        """Let the process go; it runs on."""
        if self.pidfd >= 0:
            with contextlib.suppress(RuntimeError):  # no loop runs any more
                asyncio.get_running_loop().remove_reader(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1


def _becoming(identity: Identity, groups: list[int]) -> list[str]:
    """The words before a command with which setpriv(1) becomes a user and then that command."""
    if identity.uid is None or identity.gid is None:
        return []
    listed = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return ["setpriv", f"--reuid={identity.uid}", f"--regid={identity.gid}", listed, "--"]


def spawn(
    arguments: list[str],
    *,
    identity: Identity,
    groups: list[int],
    descriptors: tuple[int, ...],
    stderr_fd: int,
) -> VmProcess:
    """Start QEMU: own session, no terminal, no descriptor but those given, no right but its user's.

    By vfork, which a change of user by Python would rule out: to copy an engine's page tables,
    and then to fault on each page that it writes, costs it tens of milliseconds.

    Blocking. Raises Unavailable or ResourceExhausted; then there is no process.
    """
    try:
        process = _Outliving(
            [*_becoming(identity, groups), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stderr_fd,
            stderr=stderr_fd,
            close_fds=True,
            pass_fds=descriptors,
            cwd="/",
            # One arena: what the threads' own would keep free costs each VM 2 MB.
            env={"LC_ALL": "C", "PATH": "/usr/bin:/bin", "MALLOC_ARENA_MAX": "1"},
            start_new_session=True,
            umask=0o077,
        )
    except (MemoryError, BlockingIOError) as exc:
        raise ResourceExhausted(f"No process for {arguments[0]} can be made: {exc}") from exc
    except (OSError, subprocess.SubprocessError) as exc:
        raise Unavailable(f"{arguments[0]} could not be started: {exc}") from exc
    # A child that is not reaped keeps its entry in /proc, so both reads name this process.
    held = VmProcess.hold(process.pid, start_ticks(process.pid) or -1)
    if held is None:
        process.kill()
        process.wait()
        raise Unavailable(f"{arguments[0]} ended before it could be watched")
    with contextlib.suppress(OSError):
        Path(f"/proc/{held.pid}/oom_score_adj").write_text(str(OOM_SCORE_ADJ))
    return held
