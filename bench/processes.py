"""What processes and the host use, by /proc (proc(5))."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

KIB = 1024
MEGA = 1_000_000
PROC = Path("/proc")
UTIME, STIME = 11, 12  # places after the command's closing parenthesis
CPUCLOCK_SCHED = 2  # linux/posix-timers.h
IDLE, IOWAIT, GUEST = 3, 4, 8  # of /proc/stat; guest time is counted in user time already


@dataclass(frozen=True)
class Resident:
    """Memory of a process: all of it, and with shared pages counted by share."""

    rss_bytes: int
    pss_bytes: int

    def as_mb(self) -> dict[str, float]:
        """For a line of results."""
        return {
            "rss_mb": round(self.rss_bytes / MEGA, 1),
            "pss_mb": round(self.pss_bytes / MEGA, 1),
        }


def _ticks_to_s(ticks: int) -> float:
    return ticks / os.sysconf("SC_CLK_TCK")


def resident(pid: int, proc: Path = PROC) -> Resident:
    """Memory of a process now."""
    values_kib: dict[str, int] = {}
    for line in (proc / str(pid) / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        values_kib[name] = int(rest.split()[0])
    return Resident(values_kib["Rss"] * KIB, values_kib["Pss"] * KIB)


def cpu_s(pid: int, proc: Path = PROC) -> float:
    """CPU time of all threads of a process since it began."""
    fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return _ticks_to_s(int(fields[UTIME]) + int(fields[STIME]))


def cpu_clock_ms(pid: int) -> float:
    """The same in nanoseconds' resolution, by the process's CPU clock (clock_getcpuclockid(3))."""
    return time.clock_gettime_ns((~pid << 3) | CPUCLOCK_SCHED) / 1e6


def children(pid: int, proc: Path = PROC) -> list[int]:
    """Processes that a process has begun and that live."""
    found = (proc / str(pid) / "task").glob("*/children")
    return [int(child) for path in found for child in path.read_text().split()]


def command_name(pid: int, proc: Path = PROC) -> str:
    """What runs in a process."""
    return (proc / str(pid) / "comm").read_text().rstrip("\n")


def host_cpu_s(proc: Path = PROC) -> float:
    """CPU time that the host has spent on anything since it booted."""
    fields = [int(field) for field in (proc / "stat").read_text().split("\n", 1)[0].split()[1:]]
    return _ticks_to_s(sum(fields[:GUEST]) - fields[IDLE] - fields[IOWAIT])
