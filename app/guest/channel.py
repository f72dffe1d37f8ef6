"""The engine's end of one VM's channel (docs/channel.md), for as long as the engine cares.

The supervisor runs `run()` in its task group; everything else may be called from any task of the
same loop, connected or not. A broken connection is nobody's business but ours: `run()` connects
again, requests and streams go on where they were.

    run():  connect -> zeros, HELLO -> HELLO_ACK -> read | write | keep alive -> (fault) -> again
"""

import asyncio
import contextlib
import logging
import secrets
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.core.errors import (
    CorruptData,
    DeadlineExceeded,
    InvalidArgument,
    SlipwayError,
    Unavailable,
    Unsupported,
)
from app.core.tasks import first_error, raise_if_cancelled
from app.guest.events import EventQueue, GuestEvent
from app.guest.fields import FieldList, Fields, encode_fields
from app.guest.frames import Frame, FrameParser, MessageAssembler, encode_frame
from app.guest.handshake import MAX_INBOUND_MESSAGE_BYTES, READ_BYTES, abort, resync
from app.guest.hello import HelloInfo
from app.guest.protocol import (
    MAX_FRAME_BYTES,
    MAX_MESSAGE_BYTES,
    FrameType,
    Op,
    Tag,
)
from app.guest.requests import PendingRequest, RequestTable
from app.guest.stream_tables import InputTable, OutputTable
from app.guest.streams import DEFAULT_WINDOW_BYTES, InputStream, OutputStream

_log = logging.getLogger(__name__)

_MAX_PINGS_OUT = 8
_SETTLED_AFTER_S = 5.0  # a connection that lived so long starts the back-off anew

Connect = Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]]


@dataclass(frozen=True, slots=True)
class ChannelTimeouts:
    """How long the channel waits for what; the defaults suit a guest under emulation.

    A guest that is silent for `silence_s`, although asked, gets a new connection. By then it must
    have been asked, and the new one should be there before the guest counts as unresponsive (5 s).
    """

    connect_s: float = 10.0
    hello_s: float = 3.0  # twice as long at each further try
    max_hello_s: float = 15.0
    ping_interval_s: float = 2.0
    silence_s: float = 4.0
    first_retry_s: float = 0.02
    max_retry_s: float = 2.0


class GuestChannel:
    """One VM's channel.

    Args:
        connect: Opens a connection to the agent (`Vm.open_channel`); raises SlipwayError or
            OSError. The channel closes what it gives.
        name: The VM in messages.

    Attributes:
        connection_count: How often the guest has answered HELLO.
        last_fault: Why the newest connection ended or did not come about; for the operator.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        name: str,
        timeouts: ChannelTimeouts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.connection_count = 0
        self.last_fault = ""
        self._connect = connect
        self._timeouts = timeouts or ChannelTimeouts()
        self._clock = clock
        self._hello: HelloInfo | None = None
        self._connected = asyncio.Event()  # also set once ended, so that waiters wake
        self._ended: SlipwayError | None = None
        self._heard_at_s = clock()
        self._wake = asyncio.Event()
        self._restart = asyncio.Event()
        # The upper half tells engines apart, the lower counts (docs/channel.md, Connecting).
        self._requests = RequestTable(secrets.randbits(32) << 32)
        self._outputs = OutputTable(self._wake.set)
        self._inputs = InputTable(self._wake.set)
        self._events = EventQueue()
        self._ping_token = 0
        self._pong_token = 0
        self._ping_due = False
        self._hello_s = self._timeouts.hello_s

    @property
    def hello(self) -> HelloInfo | None:
        """What the newest HELLO_ACK told; None before the first."""
        return self._hello

    @property
    def is_connected(self) -> bool:
        """Whether the guest has answered HELLO on the present connection."""
        return self._connected.is_set() and self._ended is None

    @property
    def last_heard_monotonic_s(self) -> float:
        """When the last valid frame came (before the first: when this object was made)."""
        return self._heard_at_s

    @property
    def silent_s(self) -> float:
        """Seconds since the guest was last heard; it is asked every `ping_interval_s`."""
        return self._clock() - self._heard_at_s

    async def connected(self, timeout_s: float) -> HelloInfo:
        """Wait until the guest has answered HELLO, and return the answer.

        Raises:
            DeadlineExceeded: It has not in time; the message holds the newest fault.
            Unsupported: It speaks no version that we speak.
            Unavailable: The channel is closed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._connected.wait()
        except TimeoutError as exc:
            fault = f": {self.last_fault}" if self.last_fault else ""
            raise DeadlineExceeded(
                f"The guest of VM {self.name} did not answer within {timeout_s:g} s{fault}",
                advice="See the VM's boot console.",
            ) from exc
        self._check_open()
        assert self._hello is not None  # noqa: S101 - set before the event
        return self._hello

    async def request(self, op: Op, fields: FieldList, *, timeout_s: float) -> Fields:
        """Run an operation in the guest, at most once, and return its result.

        Waits for a connection if there is none. After cancellation or a missed deadline the
        request is not sent again; whether it ran is unknown.

        Raises:
            GuestFailed: The guest refused or failed it.
            InvalidArgument: The fields can't be encoded or are too long.
            DeadlineExceeded: No answer in time.
            Unavailable: The channel is closed.
            CorruptData: The answer is not readable.
        """
        self._check_open()
        payload = encode_fields([(Tag.OP, int(op)), *fields])
        if len(payload) > MAX_MESSAGE_BYTES:
            raise InvalidArgument(
                f"{op.name} takes {len(payload)} bytes, more than the {MAX_MESSAGE_BYTES} allowed",
                advice="Shorten arguments, environment or files.",
            )
        pending: PendingRequest | None = None
        try:
            async with asyncio.timeout(timeout_s):
                pending = await self._requests.add(op, payload)
                self._check_open()
                self._wake.set()
                return await pending.answer
        except TimeoutError as exc:
            state = "" if self.is_connected else f" (no connection: {self.last_fault or 'booting'})"
            raise DeadlineExceeded(
                f"The guest of VM {self.name} did not answer {op.name} in {timeout_s:g} s{state}"
            ) from exc
        finally:
            if pending is not None:
                self._requests.abandon(pending)

    def open_output(
        self, stream_id: int, *, offset: int = 0, window_bytes: int = DEFAULT_WINDOW_BYTES
    ) -> OutputStream:
        """Read an output stream from `offset`, what was acknowledged last.

        Call it after the request that makes the stream was answered (nothing is lost meanwhile),
        or for a stream of `hello`. The guest sends `window_bytes` beyond what is acknowledged.

        Raises:
            Conflict: It is being read already, or was read to its end.
            Unavailable: The channel is closed.
        """
        self._check_open()
        stream = self._outputs.open(stream_id, offset=offset, window_bytes=window_bytes)
        if self._outputs.needs_reconnect(stream_id):
            self._restart.set()
        return stream

    def open_input(self, stream_id: int) -> InputStream:
        """Write to an input stream; call it when `open_output` may be called.

        It goes on where an earlier engine stopped. A stream whose process has ended, or that the
        guest does not know, refuses the first write with Conflict.

        Raises:
            Conflict: It is being written already.
            Unavailable: The channel is closed.
        """
        self._check_open()
        return self._inputs.open(stream_id)

    async def next_event(self) -> GuestEvent:
        """Wait, without a deadline, for the next event; one consumer.

        Each number comes once per channel object; what was never acknowledged comes again to the
        next engine.

        Raises:
            Unavailable: The channel is closed.
        """
        return await self._events.next()

    def acknowledge_event(self, number: int) -> None:
        """Tell the guest that all events up to `number` are recorded; returns at once."""
        self._events.acknowledge(number)
        self._wake.set()

    def _check_open(self) -> None:
        if self._ended is not None:
            raise self._ended

    async def run(self) -> None:
        """Keep the channel connected until cancelled; to be run once.

        Returns only if guest and engine have no version in common. Afterwards, also after
        cancellation, no connection is open and every wait on the channel raises.
        """
        end: SlipwayError = Unavailable(f"The channel of VM {self.name} is closed")
        retry_s = self._timeouts.first_retry_s
        try:
            while True:
                began_s = self._clock()
                fault: BaseException | None = None
                try:
                    await self._serve_connection()
                except* (SlipwayError, OSError) as group:
                    fault = first_error(group)
                if isinstance(fault, Unsupported):
                    end = fault
                    return
                self._note_fault(fault)
                raise_if_cancelled()
                if self._clock() - began_s >= _SETTLED_AFTER_S:
                    retry_s = self._timeouts.first_retry_s
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, self._timeouts.max_retry_s)
        finally:
            self._end(end)

    def _note_fault(self, error: BaseException | None) -> None:
        fault = str(error)
        if fault != self.last_fault:
            _log.info("Channel of VM %s: %s; connecting again", self.name, fault)
        self.last_fault = fault

    def _end(self, error: SlipwayError) -> None:
        self._ended = error
        self._connected.set()
        self._requests.fail_all(error)
        self._outputs.fail_all(error)
        self._inputs.fail_all(error)
        self._events.fail(error)

    async def _serve_connection(self) -> None:
        try:
            async with asyncio.timeout(self._timeouts.connect_s):
                reader, writer = await self._connect()
        except TimeoutError as exc:
            raise DeadlineExceeded("no connection within the deadline") from exc
        parser = FrameParser()
        try:
            hello_s = self._hello_s
            self._hello_s = min(hello_s * 2, self._timeouts.max_hello_s)
            self._begin(await resync(reader, writer, parser, timeout_s=hello_s))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write_frames(writer))
                group.create_task(self._keep_alive())
                await self._read_frames(reader, parser)
        finally:
            if self._ended is None:
                self._connected.clear()
            await abort(writer)

    def _begin(self, info: HelloInfo) -> None:
        self._hello = info
        self._hello_s = self._timeouts.hello_s
        self._heard_at_s = self._clock()
        self._pong_token = self._ping_token
        self._ping_due = False
        self._restart.clear()
        self._requests.begin_connection()
        self._events.begin_connection()
        self._outputs.begin_connection(info)
        self._inputs.begin_connection(info)
        self.connection_count += 1
        self._connected.set()
        self._wake.set()

    async def _read_frames(self, reader: StreamReader, parser: FrameParser) -> None:
        assembler = MessageAssembler(MAX_INBOUND_MESSAGE_BYTES)
        while True:
            while (frame := parser.next_frame()) is not None:
                self._heard_at_s = self._clock()
                self._dispatch(frame, assembler)
            data = await reader.read(READ_BYTES)
            if not data:
                raise Unavailable("the connection was closed")
            parser.feed(data)

    def _dispatch(self, frame: Frame, assembler: MessageAssembler) -> None:
        match frame.type:
            case FrameType.DATA:
                self._outputs.receive(frame)
            case FrameType.ACK:
                self._inputs.receive_ack(frame)
            case FrameType.RESPONSE:
                if (message := assembler.add(frame)) is not None:
                    self._requests.receive(frame.offset, message)
            case FrameType.EVENT:
                if (message := assembler.add(frame)) is not None:
                    self._events.receive(frame.offset, message)
            case FrameType.PONG:
                if self._pong_token < frame.offset <= self._ping_token:
                    self._pong_token = frame.offset
                    self._outputs.confirm(frame.offset)
            case _:
                raise CorruptData(f"Channel lost: {frame.type.name} from the guest")

    async def _write_frames(self, writer: StreamWriter) -> None:
        # A low mark keeps our own queue short, so that control frames overtake stream data.
        writer.transport.set_write_buffer_limits(high=MAX_FRAME_BYTES)
        while True:
            self._wake.clear()
            while (frame := self._next_frame()) is not None:
                writer.write(frame)
                await writer.drain()
            await self._wake.wait()

    def _next_frame(self) -> bytes | None:
        """Choose what goes out next: control before requests before stream data."""
        return (
            self._events.take_frame()
            or self._outputs.take_frame(self._ping_token)
            or self._take_ping()
            or self._requests.take_frame()
            or self._inputs.take_frame()
        )

    def _take_ping(self) -> bytes | None:
        if not self._ping_due:
            return None
        self._ping_due = False
        self._ping_token += 1
        return encode_frame(FrameType.PING, offset=self._ping_token)

    async def _keep_alive(self) -> None:
        interval_s, silence_s = self._timeouts.ping_interval_s, self._timeouts.silence_s
        asked_at_s = self._heard_at_s
        wait_s = interval_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._restart.wait()
                    raise Unavailable("a stream is read again from an earlier offset")
            silent_s = self.silent_s
            is_owing = asked_at_s > self._heard_at_s
            if is_owing and silent_s >= silence_s:
                raise Unavailable(f"the guest has said nothing for {silence_s:g} s")
            is_quiet = silent_s >= interval_s / 2 or self._outputs.awaits_pong()
            if is_quiet and self._ping_token - self._pong_token < _MAX_PINGS_OUT:
                self._ping_due = True
                self._wake.set()
                if not is_owing:
                    asked_at_s = self._clock()
            wait_s = min(interval_s, max(silence_s - silent_s, interval_s / 8))
