"""Processes of a container as `ps` shows them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from app.core.errors import InvalidArgument
from app.core.units import KIB

TICKS_PER_S = 100  # USER_HZ of Linux on every architecture of ours
PAGE_BYTES = 4 * KIB
DEFAULT_FORMAT = "-ef"


@dataclass(frozen=True)
class GuestProcess:
    """One process, by /proc/PID/stat (proc(5)).

    Attributes:
        pid, parent_pid: In the guest's own numbering.
        user: Number of its user.
        started_at_ns: Nanoseconds since the epoch.
        cpu_ticks: CPU time it has used.
        tty: Number of its terminal; 0: none.
        args: Empty for one that has none any more.
    """

    pid: int
    parent_pid: int
    user: int
    name: str
    state: str
    tty: int
    session: int
    priority: int
    nice: int
    threads: int
    cpu_ticks: int
    started_at_ns: int
    virtual_bytes: int
    resident_bytes: int
    args: tuple[str, ...]

    @property
    def command(self) -> str:
        """Its command line."""
        return " ".join(self.args) or f"[{self.name}]"


@dataclass(frozen=True)
class Moment:
    """What else a column needs: the time, and the VM's memory."""

    now_ns: int
    memory_bytes: int


Column = Callable[[GuestProcess, Moment], str]


def parse_stat(line: str, *, user: int, args: tuple[str, ...], boot_ns: int) -> GuestProcess:
    """Read the line of /proc/PID/stat.

    Args:
        line: As the kernel writes it; the name in parentheses may hold anything.
        user: Its user.
        args: Its arguments.
        boot_ns: When the guest's clock of uptime was zero.

    Raises:
        ValueError: It is not such a line.
    """
    head, _, rest = line.rpartition(")")
    pid, _, name = head.partition(" (")
    fields = rest.split()
    numbers = [int(field) for field in fields[1:22]]
    (parent, _, session, tty) = numbers[:4]
    return GuestProcess(
        pid=int(pid),
        parent_pid=parent,
        user=user,
        name=name,
        state=fields[0],
        tty=tty,
        session=session,
        priority=numbers[14],
        nice=numbers[15],
        threads=numbers[16],
        cpu_ticks=numbers[10] + numbers[11],
        started_at_ns=boot_ns + numbers[18] * 1_000_000_000 // TICKS_PER_S,
        virtual_bytes=numbers[19],
        resident_bytes=numbers[20] * PAGE_BYTES,
        args=args,
    )


def format_processes(
    processes: list[GuestProcess], ps_args: str, moment: Moment
) -> tuple[list[str], list[list[str]]]:
    """Titles and rows as `ps` gives them.

    Args:
        processes: Of the container.
        ps_args: `-ef`, `aux` and their like, or `-o NAME,…`.
        moment: Of the reading.

    Raises:
        InvalidArgument: These arguments are not understood here.
    """
    columns = _columns(ps_args or DEFAULT_FORMAT)
    rows = [
        [column(process, moment) for _, column in columns]
        for process in sorted(processes, key=lambda each: each.pid)
    ]
    return [title for title, _ in columns], rows


def _columns(ps_args: str) -> list[tuple[str, Column]]:
    words = ps_args.split()
    letters, names = "", ""
    while words:
        word = words.pop(0)
        flags = word.removeprefix("-")
        if flags.endswith("o") and words and not word.startswith("--"):
            names += f",{words.pop(0)}"
            flags = flags[:-1]
        elif flags.startswith("o") and len(flags) > 1:
            names += f",{flags[1:]}"
            flags = ""
        letters += flags
    if not set(letters) <= set("aefuwxA"):
        raise _not_understood(ps_args)
    if names:
        return [_named(name, ps_args) for name in names.split(",") if name]
    if "u" in letters:
        return _USER_FORMAT
    return _FULL_FORMAT if "f" in letters else _SHORT_FORMAT


def _named(name: str, ps_args: str) -> tuple[str, Column]:
    wanted, _, title = name.partition("=")
    if wanted not in _BY_NAME:
        raise _not_understood(ps_args)
    default_title, column = _BY_NAME[wanted]
    return title or default_title, column


def _not_understood(ps_args: str) -> InvalidArgument:
    return InvalidArgument(
        f"ps: the arguments {ps_args!r} are not understood",
        advice="Use -ef, aux, or -o with names of columns.",
    )


def _user(process: GuestProcess, _: Moment) -> str:
    """Names are the container's own affair; only root's is sure."""
    return "root" if process.user == 0 else str(process.user)


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _time(process: GuestProcess, _: Moment) -> str:
    return _clock(process.cpu_ticks // TICKS_PER_S)


def _minutes(process: GuestProcess, _: Moment) -> str:
    seconds = process.cpu_ticks // TICKS_PER_S
    return f"{seconds // 60}:{seconds % 60:02}"


def _elapsed_s(process: GuestProcess, moment: Moment) -> int:
    return max(moment.now_ns - process.started_at_ns, 0) // 1_000_000_000


def _elapsed(process: GuestProcess, moment: Moment) -> str:
    seconds = _elapsed_s(process, moment)
    days, rest = divmod(seconds, 86_400)
    text = _clock(rest) if rest >= 3600 or days else f"{rest // 60:02}:{rest % 60:02}"
    return f"{days}-{text}" if days else text


def _cpu_percent(process: GuestProcess, moment: Moment) -> float:
    elapsed_s = _elapsed_s(process, moment)
    return 100 * process.cpu_ticks / TICKS_PER_S / elapsed_s if elapsed_s else 0.0


def _start(process: GuestProcess, moment: Moment) -> str:
    began = datetime.fromtimestamp(process.started_at_ns / 1e9, UTC)
    is_recent = moment.now_ns - process.started_at_ns < 86_400 * 10**9
    return f"{began:%H:%M}" if is_recent else f"{began:%b%d}"


def _tty(process: GuestProcess, _: Moment) -> str:
    major, minor = process.tty >> 8 & 0xFFF, process.tty & 0xFF | process.tty >> 12 & 0xFFF00
    if process.tty == 0:
        return "?"
    return f"pts/{minor}" if 136 <= major <= 143 else f"{major}:{minor}"


def _state(process: GuestProcess, _: Moment) -> str:
    text = process.state
    text += "<" if process.nice < 0 else "N" if process.nice > 0 else ""
    text += "s" if process.session == process.pid else ""
    return text + ("l" if process.threads > 1 else "")


def _memory_percent(process: GuestProcess, moment: Moment) -> str:
    if not moment.memory_bytes:
        return "0.0"
    return f"{100 * process.resident_bytes / moment.memory_bytes:.1f}"


_PID: tuple[str, Column] = ("PID", lambda process, _: str(process.pid))
_PPID: tuple[str, Column] = ("PPID", lambda process, _: str(process.parent_pid))
_COMMAND: Column = lambda process, _: process.command  # noqa: E731
_SHORT_FORMAT: list[tuple[str, Column]] = [
    _PID,
    ("TTY", _tty),
    ("TIME", _time),
    ("CMD", lambda process, _: process.name),
]
_FULL_FORMAT: list[tuple[str, Column]] = [
    ("UID", _user),
    _PID,
    _PPID,
    ("C", lambda process, moment: str(min(int(_cpu_percent(process, moment)), 99))),
    ("STIME", _start),
    ("TTY", _tty),
    ("TIME", _time),
    ("CMD", _COMMAND),
]
_USER_FORMAT: list[tuple[str, Column]] = [
    ("USER", _user),
    _PID,
    ("%CPU", lambda process, moment: f"{_cpu_percent(process, moment):.1f}"),
    ("%MEM", _memory_percent),
    ("VSZ", lambda process, _: str(process.virtual_bytes // KIB)),
    ("RSS", lambda process, _: str(process.resident_bytes // KIB)),
    ("TTY", _tty),
    ("STAT", _state),
    ("START", _start),
    ("TIME", _minutes),
    ("COMMAND", _COMMAND),
]
_BY_NAME: dict[str, tuple[str, Column]] = {
    "args": ("COMMAND", _COMMAND),
    "cmd": ("CMD", _COMMAND),
    "comm": ("COMMAND", lambda process, _: process.name),
    "command": ("COMMAND", _COMMAND),
    "etime": ("ELAPSED", _elapsed),
    "ni": ("NI", lambda process, _: str(process.nice)),
    "nice": ("NI", lambda process, _: str(process.nice)),
    "nlwp": ("NLWP", lambda process, _: str(process.threads)),
    "pcpu": _USER_FORMAT[2],
    "%cpu": _USER_FORMAT[2],
    "pid": _PID,
    "pmem": _USER_FORMAT[3],
    "%mem": _USER_FORMAT[3],
    "ppid": _PPID,
    "pri": ("PRI", lambda process, _: str(39 - process.priority)),
    "rss": _USER_FORMAT[5],
    "s": ("S", lambda process, _: process.state),
    "stat": ("STAT", _state),
    "state": ("S", lambda process, _: process.state),
    "stime": ("STIME", _start),
    "time": ("TIME", _time),
    "tt": ("TT", _tty),
    "tty": ("TT", _tty),
    "uid": ("UID", lambda process, _: str(process.user)),
    "user": ("USER", _user),
    "vsz": _USER_FORMAT[4],
}
