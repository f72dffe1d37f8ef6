"""The processes of a container, as the agent tells of them."""

from dataclasses import dataclass

from app.core.errors import CorruptData
from app.guest.fields import Fields
from app.guest.protocol import Tag


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """A process of a container.

    Attributes:
        pid: In the guest.
        user: Number of its user.
        stat: The line of /proc/PID/stat.
    """

    pid: int
    user: int
    stat: str
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProcessList:
    """The processes of a container.

    Attributes:
        time_ns: Guest clock, nanoseconds since the epoch.
        uptime_ns: Nanoseconds since the guest booted.
    """

    time_ns: int
    uptime_ns: int
    processes: tuple[ProcessEntry, ...]


def decode_processes(fields: Fields) -> ProcessList:
    """Read the answer to PROCESSES.

    Raises:
        CorruptData: A user is no number.
    """
    entries = []
    for group in fields.groups(Tag.PROCESS):
        user = group.text(Tag.USER)
        if not user.isdecimal():
            raise CorruptData("A process has a user that is no number")
        stat = group.data(Tag.DATA).decode("utf-8", "replace")
        args = tuple(group.texts(Tag.ARG))
        entries.append(ProcessEntry(group.number(Tag.PID), int(user), stat, args))
    return ProcessList(fields.number(Tag.TIME_NS), fields.number(Tag.UPTIME_NS), tuple(entries))
