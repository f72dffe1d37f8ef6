"""What a test run left behind: processes, sockets, mounts and files.

The run's own process becomes the reaper of all that its tests start, so that a VM in a session of
its own shows up here too; other people's processes on the machine never do.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
REAP_INTERVAL_S = 0.02
LISTEN = "0A"  # state in /proc/net/tcp


@dataclass(frozen=True)
class Traces:
    """Countable traces of programs on this machine, as sets of descriptions."""

    processes: frozenset[str]
    sockets: frozenset[str]
    mounts: frozenset[str]
    files: frozenset[str]

    def since(self, before: "Traces") -> list[str]:
        """What is here and was not there before."""
        kinds = {
            "process": self.processes - before.processes,
            "socket": self.sockets - before.sockets,
            "mount": self.mounts - before.mounts,
            "file": self.files - before.files,
        }
        return [f"{kind}: {item}" for kind, items in kinds.items() for item in sorted(items)]

    def __str__(self) -> str:
        return (
            f"{len(self.processes)} processes, {len(self.sockets)} sockets, "
            f"{len(self.mounts)} mounts, {len(self.files)} files"
        )


def become_reaper() -> None:
    """Inherit orphans of all descendants, which init would get otherwise."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _descendants(pid: int) -> list[int]:
    """Every process below `pid`, ended ones that nobody has reaped included."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text(encoding="ascii").split():
            found += [int(child), *_descendants(int(child))]
    return found


def run_reaping(
    argv: Sequence[str], *, cwd: Path, env: dict[str, str], timeout_s: float
) -> int | None:
    """Run a program and reap orphans meanwhile, as init would; returns its exit code.

    An ended orphan that nobody reaps would look alive to a test that asks for its pid. After
    `timeout_s` the program is killed and the answer is None.

    Raises:
        FileNotFoundError: There is no such program.
    """
    program = subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL)
    give_up_at = time.monotonic() + timeout_s
    while program.returncode is None:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None and ended.si_pid == program.pid:
            program.wait()
        elif ended is not None:
            os.waitpid(ended.si_pid, 0)
        elif time.monotonic() > give_up_at:
            program.kill()
            program.wait()
            return None
        else:
            time.sleep(REAP_INTERVAL_S)
    return program.returncode


def _reap_ended() -> None:
    """Collect orphans that ended by themselves: only what still runs is left behind."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def end_descendants() -> None:
    """Kill what is left below this process, so that a failed run leaves the machine clean."""
    for pid in _descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _describe(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return f"{pid} {command[:200]}"


def _processes(pids: list[int]) -> frozenset[str]:
    described = set()
    for pid in pids:
        try:
            described.add(_describe(pid))
        except OSError:
            continue  # ended meanwhile
    return frozenset(described)


def _sockets(pids: list[int]) -> frozenset[str]:
    """Listening TCP and all unix sockets that one of the processes holds open."""
    held = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(descriptor.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                held.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and fields[9] in held:
                found.add(f"{table} port {int(fields[1].rpartition(':')[2], 16)}")
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]:
        fields = line.split()
        if fields[6] in held:
            found.add(f"unix {fields[7] if len(fields) > 7 else fields[6]}")
    return frozenset(found)


def _mounts() -> frozenset[str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return frozenset(line.split()[4] for line in lines)


def _files(root: Path, temporary: Path) -> frozenset[str]:
    """Files of the checkout that git does not know, and all that lies in the run's own TMPDIR.

    Shared memory counts where it carries our name.
    """
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = set(listed.stdout.splitlines())
    found |= {str(path) for path in temporary.iterdir()}
    found |= {str(path) for path in Path("/dev/shm").glob("slipway*")}  # noqa: S108  (only read)
    return frozenset(found)


def count(root: Path, temporary: Path) -> Traces:
    """Count now; ended orphans are reaped first."""
    _reap_ended()
    pids = _descendants(os.getpid())
    return Traces(
        processes=_processes(pids),
        sockets=_sockets(pids),
        mounts=_mounts(),
        files=_files(root, temporary),
    )
