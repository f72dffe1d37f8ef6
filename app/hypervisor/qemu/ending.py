"""Why a VM ended: judged from what QEMU said, how its process ended and what was left behind.

What cannot be known is said as such: an adopted process is no child, so its exit status is
unknown; whether the host's OOM killer took it stands only in the kernel log, which the engine may
not be allowed to read.
"""

import errno
import os
import re
import signal
from dataclasses import dataclass, field
from pathlib import Path

from app.domain.vm import VmEndReason
from app.hypervisor.port import VmExit
from app.hypervisor.qemu.process import ExitStatus

KERNEL_LOG = Path("/dev/kmsg")
STDERR_LIMIT_CHARACTERS = 600
PANIC_LIMIT_CHARACTERS = 200

_PANIC = re.compile(r"Kernel panic - not syncing: *([^\r\n]*)")
_OOM_KILL = re.compile(r"Killed process (\d+) ")
_KERNEL_LOG_RECORD_BYTES = 8192  # longest record that /dev/kmsg gives


@dataclass
class Evidence:
    """What is known about an end.

    Attributes:
        requested: The reason of our own `stop()`, or None.
        shutdown: Reason in QMP's SHUTDOWN event (ShutdownCause), "" if none was seen.
        is_panicked: QMP said so.
        internal_error: QMP's run state was internal-error.
        status: Exit status of the process.
        stderr: What QEMU wrote.
        console_tail: The newest of the console.
        is_oom_killed: From the kernel log; None if it is not readable.
    """

    requested: VmEndReason | None = None
    shutdown: str = ""
    is_panicked: bool = False
    internal_error: bool = False
    status: ExitStatus = field(default_factory=ExitStatus)
    stderr: str = ""
    console_tail: str = ""
    is_oom_killed: bool | None = False

    @property
    def is_guest_over(self) -> bool:
        """Whether the guest ended and its QEMU only waits to be let go."""
        return self.is_panicked or self.internal_error or self.shutdown.startswith("guest-")


def judge(evidence: Evidence) -> VmExit:
    """Decide; what the guest did by itself goes before what we asked for."""
    by_guest = _judge_guest(evidence)
    if by_guest is not None:
        return by_guest
    if evidence.requested is not None:
        return VmExit(evidence.requested, f"stopped by the engine ({evidence.requested.value})")
    return _judge_process(evidence)


def _judge_guest(evidence: Evidence) -> VmExit | None:
    panic = _PANIC.findall(evidence.console_tail)
    text = _plain(panic[-1], PANIC_LIMIT_CHARACTERS) if panic else ""
    if evidence.is_panicked or (evidence.shutdown == "guest-reset" and text):
        return VmExit(
            VmEndReason.PANIC,
            f"the guest kernel panicked: {text}" if text else "the guest kernel panicked",
        )
    if evidence.shutdown == "guest-reset":
        return VmExit(
            VmEndReason.PANIC, "the guest reset itself, which its kernel does only after a fault"
        )
    if evidence.internal_error:
        return VmExit(
            VmEndReason.FAILED, f"the hypervisor could not go on{_words(evidence.stderr)}"
        )
    if evidence.shutdown in ("guest-shutdown", "guest-over"):
        # "guest-over" is ours: found shut down at adoption, when the event was long gone.
        if text:
            return VmExit(VmEndReason.PANIC, f"the guest kernel panicked: {text}")
        return VmExit(VmEndReason.POWERED_OFF, "the guest switched itself off")
    return None


def _judge_process(evidence: Evidence) -> VmExit:
    status = evidence.status
    if evidence.is_oom_killed:
        return VmExit(
            VmEndReason.OUT_OF_HOST_MEMORY,
            "the host ran out of memory and its kernel killed the VM's process",
        )
    if status.signal == signal.SIGKILL or evidence.shutdown.startswith("host-"):
        number = int(status.signal or signal.SIGTERM)
        return VmExit(
            VmEndReason.KILLED,
            f"the VM's process was killed by signal {number}, sent by somebody else on this host"
            f"{_oom_doubt(evidence)}",
        )
    if status.signal is not None:
        name = signal.Signals(status.signal).name
        return VmExit(VmEndReason.FAILED, f"QEMU crashed ({name}){_words(evidence.stderr)}")
    if status.exit_code:
        return VmExit(
            VmEndReason.FAILED,
            f"QEMU ended with exit code {status.exit_code}{_words(evidence.stderr)}",
        )
    if evidence.stderr.strip():
        return VmExit(VmEndReason.FAILED, f"QEMU ended by itself{_words(evidence.stderr)}")
    return VmExit(
        VmEndReason.KILLED,
        "the VM's process vanished without a word, most likely killed by signal 9"
        f"{_oom_doubt(evidence)}",
    )


def _words(stderr: str) -> str:
    text = _plain(stderr, STDERR_LIMIT_CHARACTERS)
    return f": {text}" if text else ""


def _plain(text: str, limit_characters: int) -> str:
    """One line of printable characters: what a guest or QEMU wrote is for people to read."""
    words = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in words)[:limit_characters]


def _oom_doubt(evidence: Evidence) -> str:
    if evidence.is_oom_killed is None:
        return "; whether the host ran out of memory is not known (the kernel log is not readable)"
    return ""


def conclude(evidence: Evidence, *, pid: int, start_ticks: int) -> VmExit:
    """Decide, after asking the kernel log where only it can know; blocking."""
    is_unexplained = evidence.requested is None and not evidence.is_guest_over
    if is_unexplained and evidence.status.signal in (signal.SIGKILL, None):
        evidence.is_oom_killed = is_oom_killed(pid, start_ticks)
    return judge(evidence)


def is_oom_killed(pid: int, start_ticks: int) -> bool | None:
    """Whether the kernel log says that the OOM killer took that process; None if unreadable.

    Blocking for some milliseconds. Process ids come again, so older lines than the process do
    not count.
    """
    try:
        fd = os.open(KERNEL_LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return any(
            oom_victim(record, since_us=start_ticks * 1_000_000 // os.sysconf("SC_CLK_TCK")) == pid
            for record in _kernel_log_records(fd)
        )
    finally:
        os.close(fd)


def _kernel_log_records(fd: int) -> "list[str]":
    records = []
    while True:
        try:
            records.append(os.read(fd, _KERNEL_LOG_RECORD_BYTES).decode(errors="replace"))
        except OSError as exc:
            if exc.errno == errno.EPIPE:  # overwritten while we read: go on with the oldest left
                continue
            return records


def oom_victim(record: str, *, since_us: int) -> int | None:
    """Process id that a kernel log record names as killed for memory.

    Format: Linux Documentation/ABI/testing/dev-kmsg: "level,sequence,microseconds,flags;text".
    """
    head, _, text = record.partition(";")
    fields = head.split(",")
    match = _OOM_KILL.search(text)
    if match is None or "emory" not in text or len(fields) < 3 or not fields[2].isdecimal():
        return None
    return int(match[1]) if int(fields[2]) >= since_us else None
