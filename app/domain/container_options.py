"""Parts of a container's configuration that are values of their own."""

from dataclasses import dataclass
from typing import TypeAlias

from app.core.errors import InvalidFields

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"
Echo: TypeAlias = dict[str, JsonValue]

DEFAULT_LOG_DRIVER = "json-file"
NO_LOG_DRIVER = "none"  # whoever is attached sees the output; nothing is kept
DEFAULT_CPU_PERIOD_US = 100_000
UNLIMITED = -1
# RLIMIT_ numbers of Linux include/uapi/asm-generic/resource.h, by Docker's names (go-units).
RESOURCES = {
    "core": 4,
    "cpu": 0,
    "data": 2,
    "fsize": 1,
    "locks": 10,
    "memlock": 8,
    "msgqueue": 12,
    "nice": 13,
    "nofile": 7,
    "nproc": 6,
    "rss": 5,
    "rtprio": 14,
    "rttime": 15,
    "sigpending": 11,
    "stack": 3,
}
# cgroup v1 shares to v2 weight, as runc (opencontainers/cgroups, ConvertCPUSharesToCgroupV2Value).
_LEAST_SHARES, _MOST_SHARES, _MOST_WEIGHT = 2, 262_144, 10_000


@dataclass(frozen=True)
class Ulimit:
    """A POSIX limit of every process in the container; UNLIMITED for none."""

    name: str
    soft: int
    hard: int

    @property
    def resource(self) -> int:
        """Linux's number of it.

        Raises:
            InvalidFields: There is no such limit.
        """
        if self.name not in RESOURCES:
            raise InvalidFields({"ulimits": f"invalid ulimit type: {self.name}"})
        return RESOURCES[self.name]


@dataclass(frozen=True)
class DeviceMapping:
    """A device of the VM for the container.

    Attributes:
        source: Its path in the guest's /dev.
        target: Its path in the container.
        permissions: Of `rwm` (read, write, make).
    """

    source: str
    target: str
    permissions: str = "rwm"


@dataclass(frozen=True)
class CpuTuning:
    """CPU options of Docker beside `--cpus`; 0 and empty mean unset.

    Attributes:
        shares: Weight against others. A VM has one container, so it decides nothing.
        quota_us: CPU time within `period_us`; UNLIMITED for no limit.
        cpuset_cpus, cpuset_mems: Kept and shown; the VM's vCPUs are not pinned.
    """

    shares: int = 0
    period_us: int = 0
    quota_us: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""

    @property
    def cpus(self) -> float:
        """The quota in units of one CPU; 0: no limit."""
        if self.quota_us <= 0:
            return 0.0
        return self.quota_us / (self.period_us or DEFAULT_CPU_PERIOD_US)

    @property
    def weight(self) -> int | None:
        """`cpu.weight` of cgroup v2; None if no shares are set."""
        if self.shares <= 0:
            return None
        shares = min(max(self.shares, _LEAST_SHARES), _MOST_SHARES)
        return 1 + (shares - _LEAST_SHARES) * (_MOST_WEIGHT - 1) // (_MOST_SHARES - _LEAST_SHARES)


NO_TUNING = CpuTuning()
