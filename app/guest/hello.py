"""What HELLO_ACK tells: everything a new engine must know about the guest."""

from dataclasses import dataclass

from app.core.errors import CorruptData
from app.guest.fields import Fields
from app.guest.protocol import FLAG_EOF, Direction, ProcessState, Tag


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of boot or of CREATE; `at_ns` is when it ended, nanoseconds since the guest booted."""

    name: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A stream that the guest still knows.

    Attributes:
        base: Offset of the oldest byte kept; all below was acknowledged.
        end: Offset after the newest byte so far.
        has_ended: Whether `end` is final.
    """

    stream_id: int
    direction: Direction
    base: int
    end: int
    has_ended: bool


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process that the guest still knows.

    Attributes:
        process_id: `init` for the container's first process, else the exec's id.
        pid: In the guest.
        exit_code: Exit status, or 128 + signal; None until it has exited.
        signal: The signal that ended it, or 0.
        time_ns: Guest clock of its last change of state.
    """

    container_id: str
    process_id: str
    state: ProcessState
    pid: int
    exit_code: int | None
    signal: int
    oom_killed: bool
    time_ns: int


@dataclass(frozen=True, slots=True)
class HelloInfo:
    """The guest at the moment of (re)connecting.

    Attributes:
        version: Protocol version to speak.
        time_ns: Guest clock, nanoseconds since the epoch.
        uptime_ns: Nanoseconds since the guest booted.
        stages: Boot stages in order.
    """

    version: int
    agent_version: str
    kernel: str
    time_ns: int
    uptime_ns: int
    stages: tuple[Stage, ...]
    streams: tuple[StreamInfo, ...]
    processes: tuple[ProcessInfo, ...]

    def stream(self, stream_id: int) -> StreamInfo | None:
        """The stream of that id, if the guest knows it."""
        return next((info for info in self.streams if info.stream_id == stream_id), None)


def decode_stages(fields: Fields) -> tuple[Stage, ...]:
    """Return the STAGE groups in order.

    Raises:
        CorruptData: One is incomplete.
    """
    return tuple(
        Stage(group.text(Tag.NAME), group.number(Tag.AT_NS)) for group in fields.groups(Tag.STAGE)
    )


def decode_hello(payload: bytes) -> HelloInfo:
    """Decode HELLO_ACK; a version of 0 leaves the rest at its defaults.

    Raises:
        CorruptData: Something is missing or impossible.
    """
    fields = Fields(payload)
    return HelloInfo(
        version=fields.number(Tag.VERSION),
        agent_version=fields.text(Tag.AGENT_VERSION, ""),
        kernel=fields.text(Tag.KERNEL, ""),
        time_ns=fields.number(Tag.TIME_NS, 0),
        uptime_ns=fields.number(Tag.UPTIME_NS, 0),
        stages=decode_stages(fields),
        streams=tuple(_decode_stream(group) for group in fields.groups(Tag.STREAM)),
        processes=tuple(_decode_process(group) for group in fields.groups(Tag.PROCESS)),
    )


def _decode_stream(group: Fields) -> StreamInfo:
    number = group.number(Tag.DIRECTION)
    base, end = group.number(Tag.BASE), group.number(Tag.END)
    if number not in (Direction.OUTPUT, Direction.INPUT) or base > end:
        raise CorruptData("The guest describes an impossible stream")
    return StreamInfo(
        stream_id=group.number(Tag.STREAM_ID),
        direction=Direction(number),
        base=base,
        end=end,
        has_ended=bool(group.number(Tag.FLAGS, 0) & FLAG_EOF),
    )


def _decode_process(group: Fields) -> ProcessInfo:
    number = group.number(Tag.PROCESS_STATE)
    if number not in tuple(ProcessState):
        raise CorruptData(f"The guest names an unknown process state {number}")
    state = ProcessState(number)
    return ProcessInfo(
        container_id=group.text(Tag.CONTAINER),
        process_id=group.text(Tag.PROCESS_ID),
        state=state,
        pid=group.number(Tag.PID, 0),
        exit_code=group.number(Tag.EXIT_CODE) if state is ProcessState.EXITED else None,
        signal=group.number(Tag.SIGNAL, 0),
        oom_killed=group.flag(Tag.OOM_KILLED),
        time_ns=group.number(Tag.TIME_NS, 0),
    )
