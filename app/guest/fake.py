"""A guest played in this process: the agent's side of docs/channel.md, with scripted programs.

For tests of everything above the channel, at speed. It passes the contract suite of the real agent;
its containers are coroutines (`fake_programs.py`). It outlives its connections, as a VM does.
"""

import asyncio
import contextlib
import errno
import time
from asyncio import StreamReader, StreamWriter
from collections import deque
from collections.abc import Mapping

from app.core.errors import CorruptData, Unavailable
from app.core.units import KIB, MIB
from app.guest.fake_operations import FakeMachine, OperationError
from app.guest.fake_process import INIT_PROCESS_ID, SIGKILL, FakeContainer, FakeProcess, Program
from app.guest.fake_programs import PROGRAMS
from app.guest.fake_streams import EventJournal, FakeInput
from app.guest.fields import FieldList, Fields, FieldValue, encode_fields
from app.guest.frames import (
    Frame,
    MessageAssembler,
    ResyncingFrameParser,
    encode_frame,
    encode_message,
)
from app.guest.memory_stream import memory_stream_pair
from app.guest.protocol import (
    PROTOCOL_VERSION,
    EventKind,
    FrameType,
    Op,
    Tag,
)

KEPT_ANSWERS = 64
_READ_BYTES = 64 * KIB
_BOOT_STAGE: tuple[Tag, FieldValue] = (
    Tag.STAGE,
    [(Tag.NAME, "agent"), (Tag.AT_NS, 1_000_000)],
)


class FakeGuest:
    """A guest. `connect` gives what `Vm.open_channel` gives; `close` ends everything in it.

    Args:
        programs: Further programs by name, beside those of `fake_programs.PROGRAMS`.
        delays_s: How long an operation takes, for those that shall not answer at once.
        gates: What an operation waits for, if anything; a second one meanwhile is EBUSY.

    Attributes:
        runs: The Op of everything that really ran, in order.
        is_hung: Set it and the guest answers nothing until it is cleared by `resume`.
        gated: The Op of everything that waits at its gate.
        powered_off: Set once POWER_OFF was answered.
    """

    def __init__(
        self,
        *,
        programs: Mapping[str, Program] | None = None,
        delays_s: Mapping[int, float] | None = None,
        gates: Mapping[int, asyncio.Event] | None = None,
        init_output_bytes: int = MIB,
        exec_output_bytes: int = 256 * KIB,
        version: int = PROTOCOL_VERSION,
    ) -> None:
        self.runs: list[int] = []
        self.is_hung = False
        self.powered_off = asyncio.Event()
        self._resumed = asyncio.Event()
        self._version = version
        self._delays_s = delays_s or {}
        self._gates = {} if gates is None else gates
        self.gated: set[int] = set()
        self._booted_ns = time.monotonic_ns()
        self._clock_offset_ns = 0
        self._tasks: set[asyncio.Task[int] | asyncio.Task[None]] = set()
        self._serving = asyncio.Lock()
        self._parser = ResyncingFrameParser()
        self._assembler = MessageAssembler()
        self._is_greeted = False
        self._control: deque[bytes] = deque()
        self._turns: deque[int] = deque()
        self._wake = asyncio.Event()
        self._answers: dict[int, bytes] = {}
        self._under_way: set[int] = set()
        self._creating = 0
        self._behind_create: deque[tuple[int, int, Fields]] = deque()  # START waits for CREATE
        self.machine = FakeMachine(
            self,
            {**PROGRAMS, **(programs or {})},
            init_output_bytes=init_output_bytes,
            exec_output_bytes=exec_output_bytes,
            own=self._own,
            on_input=lambda stream: self._send(stream.ack()),
            set_clock=self._set_clock,
        )
        self._journal = EventJournal(self.machine.forget)

    async def connect(self) -> tuple[StreamReader, StreamWriter]:
        """Open a connection; the guest serves one at a time.

        Raises:
            Unavailable: The guest is off, or another connection is open.
        """
        if self.powered_off.is_set():
            raise Unavailable("the guest is off")
        if self._serving.locked():
            raise Unavailable("the channel is held by somebody else")
        ours, theirs = memory_stream_pair()
        task = asyncio.get_running_loop().create_task(self.serve(*ours))
        self._own(task)
        await asyncio.sleep(0)  # let it take the lock
        return theirs

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve one connection until the other end closes it; closes the writer."""
        async with self._serving:
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(self._read_frames(reader)),
                        group.create_task(self._write_frames(writer)),
                        group.create_task(self._until_off()),
                    ]
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    for task in tasks:
                        task.cancel()
            except* OSError:
                pass  # the host has gone: it will be back
            finally:
                self._is_greeted = False
                self._control.clear()
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
                if self.machine.is_powering_off:
                    self.panic()

    async def _until_off(self) -> None:
        await self.powered_off.wait()

    async def close(self) -> None:
        """End every process and connection; idempotent."""
        self.panic()
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks.difference_update(tasks)

    def _own(self, task: asyncio.Task[int] | asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def resume(self) -> None:
        """Let a hung guest go on."""
        self.is_hung = False
        self._resumed.set()
        self._wake.set()

    def panic(self) -> None:
        """Die as a VM does whose kernel panics: the connection breaks and nothing answers."""
        self.powered_off.set()
        for container in list(self.machine.containers.values()):
            for process in list(container.processes.values()):
                process.die(SIGKILL)

    @property
    def containers(self) -> Mapping[str, FakeContainer]:
        """The containers by id."""
        return self.machine.containers

    def clock_ns(self) -> int:
        """The guest's clock, nanoseconds since the epoch."""
        return time.time_ns() + self._clock_offset_ns

    def _set_clock(self, time_ns: int) -> int:
        before_ns = self.clock_ns()
        self._clock_offset_ns += time_ns - before_ns
        return before_ns

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    def input_moved(self, stream: FakeInput) -> None:
        """A process has read its stdin: grant the host as much again."""
        if stream.stream_id not in self.machine.inputs:
            return
        is_done = stream.is_drained
        if is_done:
            del self.machine.inputs[stream.stream_id]
        self._send(stream.ack(eof=is_done))

    def set_blocked(self, container: FakeContainer, blocked: bool) -> None:
        """Tell when the first write of a container begins to wait, and when the last is through."""
        container.blocked_count += 1 if blocked else -1
        if container.blocked_count == (1 if blocked else 0):
            self.raise_event(
                EventKind.BACKPRESSURE,
                container.id,
                "",
                [(Tag.BLOCKED, blocked), (Tag.TIME_NS, self.clock_ns())],
            )

    def process_exited(self, process: FakeProcess) -> None:
        """Tell the exit; with the first process every other one ends."""
        container = process.container
        ack = self.machine.input_ended(process)
        if ack is not None:
            self._send(ack)
        if process.oom_killed:
            oom: FieldList = [(Tag.COUNT, container.oom_kills)]
            self.raise_event(EventKind.OOM, container.id, process.id, oom)
        self.raise_event(
            EventKind.PROCESS_EXITED,
            container.id,
            process.id,
            [
                (Tag.PROCESS_ID, process.id),
                (Tag.EXIT_CODE, process.exit_code),
                (Tag.SIGNAL, process.signal),
                (Tag.OOM_KILLED, process.oom_killed),
                (Tag.TIME_NS, process.time_ns),
            ],
        )
        if process.id == INIT_PROCESS_ID:
            for other in list(container.processes.values()):
                other.die(SIGKILL)

    def raise_event(
        self, kind: EventKind, container_id: str, process_id: str, more: FieldList
    ) -> None:
        """Put an event into the journal and send it."""
        self._send(self._journal.add(kind, container_id, process_id, more))

    def _send(self, *frames: bytes) -> None:
        if self._is_greeted:
            self._control.extend(frames)
        self._wake.set()

    async def _read_frames(self, reader: StreamReader) -> None:
        while data := await reader.read(_READ_BYTES):
            while self.is_hung:
                self._resumed.clear()
                await self._resumed.wait()
            self._parser.feed(data)
            while (frame := self._parser.next_frame()) is not None:
                with contextlib.suppress(CorruptData):  # as the agent: not worth the connection
                    self._dispatch(frame)

    def _dispatch(self, frame: Frame) -> None:
        if frame.type is FrameType.HELLO:
            self._greet(frame)
        elif not self._is_greeted:
            return
        elif frame.type is FrameType.REQUEST:
            self._receive_request(frame)
        elif frame.type is FrameType.EVENT_ACK:
            self._journal.acknowledge(frame.offset)
        elif frame.type is FrameType.DATA:
            stdin = self.machine.inputs.get(frame.stream)
            if stdin is not None:
                stdin.receive(frame)
        elif frame.type is FrameType.ACK:
            self._receive_ack(frame)
        elif frame.type is FrameType.PING:
            self._send(encode_frame(FrameType.PONG, offset=frame.offset))

    def _greet(self, frame: Frame) -> None:
        self._control.clear()
        self._assembler = MessageAssembler()
        for output in self.machine.outputs.values():
            output.begin_connection()
        hello = Fields(frame.payload)
        agreed = hello.number(Tag.VERSION_MIN) <= self._version <= hello.number(Tag.VERSION_MAX)
        answer: list[tuple[Tag, FieldValue]] = [
            (Tag.NONCE, hello.data(Tag.NONCE)),
            (Tag.VERSION, self._version if agreed else 0),
            (Tag.AGENT_VERSION, "fake"),
        ]
        if agreed:
            answer += [
                (Tag.KERNEL, "fake"),
                (Tag.TIME_NS, self.clock_ns()),
                (Tag.UPTIME_NS, time.monotonic_ns() - self._booted_ns),
                *([] if self.machine.is_quiesced else [_BOOT_STAGE]),
                *self.machine.describe(),
            ]
        self._is_greeted = True
        self._send(*encode_message(FrameType.HELLO_ACK, encode_fields(answer)))
        if agreed:
            self._send(*self._journal.frames())
            self._send(*(stream.ack() for stream in self.machine.inputs.values()))
        self._is_greeted = agreed

    def _receive_ack(self, frame: Frame) -> None:
        output = self.machine.outputs.get(frame.stream)
        if output is None:
            return
        output.receive_ack(frame)
        if output.is_forgotten:
            del self.machine.outputs[frame.stream]
        self._wake.set()

    def _receive_request(self, frame: Frame) -> None:
        message = self._assembler.add(frame)
        if message is None:
            return
        number = frame.offset
        if number in self._answers:
            self._send(*encode_message(FrameType.RESPONSE, self._answers[number], offset=number))
        elif number not in self._under_way:
            self._under_way.add(number)
            self._run_request(number, message)

    def _run_request(self, number: int, message: bytes) -> None:
        try:
            fields = Fields(message)
            op = fields.number(Tag.OP)
        except CorruptData as exc:
            self._answer(number, [(Tag.ERRNO, errno.EINVAL), (Tag.MESSAGE, exc.message)])
            return
        delay_s = self._delays_s.get(op, 0.0)
        if op == Op.START and self._creating:
            self._behind_create.append((number, op, fields))
        elif delay_s or op in self._gates:
            self._creating += op == Op.CREATE
            task = self._run_later(number, op, fields, delay_s)
            self._own(asyncio.get_running_loop().create_task(task))
        else:
            self._run_now(number, op, fields)

    async def _run_later(self, number: int, op: int, fields: Fields, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        if op in self._gates:
            if op in self.gated:
                self._answer(number, [(Tag.ERRNO, errno.EBUSY), (Tag.MESSAGE, "it is being done")])
                self._creating -= op == Op.CREATE
                return
            self.gated.add(op)
            await self._gates[op].wait()
            self.gated.discard(op)
        self._run_now(number, op, fields)
        self._creating -= op == Op.CREATE
        while self._behind_create and not self._creating:
            self._run_now(*self._behind_create.popleft())

    def _run_now(self, number: int, op: int, fields: Fields) -> None:
        self.runs.append(op)
        try:
            self._answer(number, [(Tag.ERRNO, 0), *self.machine.run(fields)])
        except OperationError as exc:
            self._answer(number, [(Tag.ERRNO, exc.errno), (Tag.MESSAGE, exc.message)])
        except CorruptData as exc:
            self._answer(number, [(Tag.ERRNO, errno.EINVAL), (Tag.MESSAGE, exc.message)])

    def _answer(self, number: int, fields: FieldList) -> None:
        self._under_way.discard(number)
        self._answers[number] = encode_fields(fields)
        while len(self._answers) > KEPT_ANSWERS:
            del self._answers[next(iter(self._answers))]
        self._send(*encode_message(FrameType.RESPONSE, self._answers[number], offset=number))

    async def _write_frames(self, writer: StreamWriter) -> None:
        while True:
            self._wake.clear()
            while not self.is_hung and (frame := self._next_frame()) is not None:
                writer.write(frame)
                await writer.drain()
            if self.machine.is_powering_off and not self._control:
                return
            await self._wake.wait()

    def _next_frame(self) -> bytes | None:
        if self._control:
            return self._control.popleft()
        if not self._is_greeted:
            return None
        if set(self._turns) != self.machine.outputs.keys():
            self._turns = deque(self.machine.outputs)
        for _ in range(len(self._turns)):
            self._turns.rotate(-1)
            output = self.machine.outputs.get(self._turns[-1])
            frame = output.take_frame() if output is not None else None
            if frame is not None:
                return frame
        return None
