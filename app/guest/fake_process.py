"""Containers and processes of `FakeGuest`: coroutines that read, write and get signals."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from app.guest.fake_streams import FakeInput, FakeOutput
from app.guest.protocol import MAX_RECORD_BYTES, RECORD_HEADER_SIZE_BYTES, ProcessState
from app.guest.records import Source, encode_record

# Linux numbers, also where the tests run on something else.
SIGKILL, SIGSEGV, SIGTERM = 9, 11, 15
_IGNORED_BY_DEFAULT = frozenset({17, 18, 23, 28})  # CHLD, CONT, URG, WINCH
INIT_PROCESS_ID = "init"

_log = logging.getLogger(__name__)


class GuestSide(Protocol):
    """What a process needs of its guest."""

    def clock_ns(self) -> int:
        """The guest's clock."""

    def wake(self) -> None:
        """There may be something to send."""

    def input_moved(self, stream: FakeInput) -> None:
        """The process has read."""

    def set_blocked(self, container: "FakeContainer", blocked: bool) -> None:
        """A write begins or ceases to wait for room."""

    def process_exited(self, process: "FakeProcess") -> None:
        """The process has ended; its state says how."""


@dataclass(eq=False)
class FakeContainer:
    """A container of the fake guest.

    Attributes:
        limits: The limits last set, by tag name.
        thawed: Cleared while frozen.
    """

    id: str
    has_init: bool = False
    limits: dict[str, int] = field(default_factory=dict)
    processes: dict[str, "FakeProcess"] = field(default_factory=dict)
    thawed: asyncio.Event = field(default_factory=asyncio.Event)
    blocked_count: int = 0
    oom_kills: int = 0
    memory_bytes: int = 1 << 20

    @property
    def init(self) -> "FakeProcess":
        """The first process."""
        return self.processes[INIT_PROCESS_ID]


class FakeProcess:
    """A process; what its program (a coroutine) works with.

    Attributes:
        env: As given; values by name.
        is_helper: Of the agent: a frozen container does not hold it.
        handled: Signals that the program takes from `signals` instead of dying of them.
    """

    def __init__(
        self,
        guest: GuestSide,
        container: FakeContainer,
        process_id: str,
        pid: int,
        *,
        args: list[str],
        env: Mapping[str, str],
        stdin: FakeInput | None,
        output: FakeOutput,
    ) -> None:
        self.container = container
        self.id = process_id
        self.pid = pid
        self.args = args
        self.env = env
        self.stdin = stdin
        self.output = output
        self.rows, self.columns = 0, 0
        self.has_tty = False
        self.is_helper = False
        self.state = ProcessState.CREATED
        self.exit_code = 0
        self.signal = 0
        self.oom_killed = False
        self.time_ns = guest.clock_ns()
        self.handled: set[int] = set()
        self.signals: asyncio.Queue[int] = asyncio.Queue(64)
        self._guest = guest
        self._task: asyncio.Task[int] | None = None

    async def write(self, data: bytes, source: Source = Source.STDOUT) -> None:
        """Write; waits while nobody acknowledges and the buffers are full, or while frozen."""
        if self.has_tty:
            source = Source.STDOUT
        for start in range(0, len(data), MAX_RECORD_BYTES):
            piece = data[start : start + MAX_RECORD_BYTES]
            await self._thawed()
            await self._wait_room(RECORD_HEADER_SIZE_BYTES + len(piece))
            if self.state is ProcessState.EXITED:  # a program that was killed cleans up
                return
            self.output.append(encode_record(self._guest.clock_ns(), source, piece))
            self._guest.wake()

    async def _thawed(self) -> None:
        if not self.is_helper:
            await self.container.thawed.wait()

    async def _wait_room(self, size_bytes: int) -> None:
        if self.output.has_room(size_bytes):
            return
        self._guest.set_blocked(self.container, True)
        try:
            while not self.output.has_room(size_bytes):
                self.output.room_made.clear()
                await self.output.room_made.wait()
        finally:
            self._guest.set_blocked(self.container, False)

    async def read(self, size_bytes: int = 4096) -> bytes:
        """Read stdin: at least a byte, or nothing at its end."""
        if self.stdin is None:
            return b""
        await self._thawed()
        data = await self.stdin.read(size_bytes)
        self._guest.input_moved(self.stdin)
        return data

    async def sleep(self, duration_s: float) -> None:
        """Sleep, and longer if frozen then."""
        await asyncio.sleep(duration_s)
        await self.container.thawed.wait()

    def die(self, signal: int, *, of_memory: bool = False) -> None:
        """End by a signal, whatever the program does."""
        self.oom_killed = self.oom_killed or of_memory
        if self.state is ProcessState.EXITED or self.signal:
            return
        self.signal = signal
        self._end(128 + signal)
        if self._task is not None:
            self._task.cancel()

    def deliver(self, signal: int) -> None:
        """Do what the kernel does with a signal to this process.

        Process 1 of a PID namespace gets only what it handles, and SIGKILL.
        """
        if signal == SIGKILL:
            self.die(signal)
        elif signal in self.handled:
            with contextlib.suppress(asyncio.QueueFull):
                self.signals.put_nowait(signal)
        elif signal not in _IGNORED_BY_DEFAULT and (
            self.id != INIT_PROCESS_ID or self.container.has_init
        ):
            self.die(signal)

    def start(self, program: "Program", own: Callable[["asyncio.Task[int]"], None]) -> None:
        """Begin to run; `own` gets the task to cancel and await it at the end."""
        self.state = ProcessState.RUNNING
        self.time_ns = self._guest.clock_ns()
        self._task = asyncio.get_running_loop().create_task(self._run(program))
        own(self._task)
        self._task.add_done_callback(self._done)

    async def _run(self, program: "Program") -> int:
        return await program(self) & 0xFF

    def _done(self, task: "asyncio.Task[int]") -> None:
        if self.signal or task.cancelled():
            self._end(128 + (self.signal or SIGKILL))
        elif (error := task.exception()) is not None:
            _log.error("Program %s of the fake guest failed", self.args, exc_info=error)
            self._end(1)
        else:
            self._end(task.result())

    def _end(self, exit_code: int) -> None:
        if self.state is ProcessState.EXITED:
            return
        self.state = ProcessState.EXITED
        self.exit_code = exit_code
        self.time_ns = self._guest.clock_ns()
        self.output.has_ended = True
        self._guest.process_exited(self)


Program: TypeAlias = Callable[[FakeProcess], Awaitable[int]]
