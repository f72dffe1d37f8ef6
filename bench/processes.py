"""What processes and the host use, by /proc (proc(5))."""

import os
from dataclasses import dataclass
from pathlib import Path

KIB = 1024
PROC = Path("/proc")
UTIME, STIME = 11, 12  # places after the command's closing parenthesis
IDLE, IOWAIT, GUEST = 3, 4, 8  # of /proc/stat; guest time is counted in user time already


@dataclass(frozen=True)
class Resident:
    """Memory of a process: all of it, and with shared pages counted by share."""

    rss_bytes: int
    pss_bytes: int


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


def host_cpu_s(proc: Path = PROC) -> float:
    """CPU time that the host has spent on anything since it booted."""
    fields = [int(field) for field in (proc / "stat").read_text().split("\n", 1)[0].split()[1:]]
    return _ticks_to_s(sum(fields[:GUEST]) - fields[IDLE] - fields[IOWAIT])
