"""The real agent's streams and spool, run as an ordinary process."""

import errno
import struct

import pytest

from app.guest.protocol import MAX_PAYLOAD_BYTES, FrameType, Op, Tag
from tests.integration.agent_driver import (
    AgentHost,
    RequestError,
    decode,
    frame,
    number,
)
from tests.integration.agent_lab import create, process_fields, run, start

pytestmark = pytest.mark.timeout(60)


def numbers(count: int) -> str:
    """What `seq 1 count` prints."""
    return "".join(f"{n}\n" for n in range(1, count + 1))


def test_nothing_is_sent_before_the_first_acknowledgement(host: AgentHost) -> None:
    spec = process_fields(["echo", "hello"], 9, {})
    host.call(Op.CREATE, [(Tag.CONTAINER, "a"), (Tag.PROCESS_SPEC, spec)])
    start(host, "a")
    host.until(lambda: host.exit_event("a") is not None)
    host.idle(0.2)  # DATA for a stream that the host doesn't know would be a KeyError
    host.ack(9)
    host.until(lambda: host.outputs[9].ended)
    assert host.outputs[9].text() == "hello\n"


def test_window_holds_the_stream_but_not_control(host: AgentHost) -> None:
    host.auto_ack = False
    create(host, "a", "seq", "1", "1000000", stream=1, extra=[])
    host.ack(1, 1000)
    start(host, "a")
    host.until(lambda: len(host.outputs[1].data) == 1000)
    host.idle(0.2)
    assert len(host.outputs[1].data) == 1000
    host.send(frame(FrameType.PING, offset=3))
    host.until(lambda: host.pongs == [3])
    host.auto_ack = True
    assert run(host, "other", "echo", "other", stream=50) == "other\n"


def test_unacknowledged_output_comes_again_from_its_base(host: AgentHost) -> None:
    host.auto_ack = False
    create(host, "a", "seq", "1", "1000", stream=1, extra=[])
    start(host, "a")
    output = host.outputs[1]
    host.until(lambda: output.ended)
    whole = bytes(output.data)
    output.data, output.ended = output.data[:100], False
    host.open()  # acknowledges 100
    host.until(lambda: output.ended)
    assert bytes(output.data) == whole
    stream = next(dict(decode(v)) for t, v in host.hello if t == Tag.STREAM)
    assert (number(stream[Tag.BASE]), number(stream[Tag.END])) == (0, len(whole))
    assert number(stream[Tag.FLAGS]) == 2
    host.ack(1)
    host.open()
    assert not [v for t, v in host.hello if t == Tag.STREAM]  # both sides have forgotten it


def test_flood_spills_to_disk_then_blocks_and_goes_on(host: AgentHost) -> None:
    host.auto_ack = False
    create(host, "a", "seq", "1", "1000000", stream=1, extra=[(Tag.SPILL_BYTES, 2 << 20)])
    start(host, "a")

    def blocked() -> list[int]:
        return [
            number(dict(event)[Tag.BLOCKED])
            for event in host.events.values()
            if number(event[0][1]) == 3
        ]

    host.until(lambda: blocked() == [1])
    host.close()
    host.auto_ack = True
    host.open()
    assert any(
        number(dict(decode(v))[Tag.END]) > 2_500_000 for t, v in host.hello if t == Tag.STREAM
    )
    host.until(lambda: host.outputs[1].ended)
    assert host.outputs[1].text() == numbers(1_000_000)
    assert blocked()[-1] == 0


def test_input_ignores_what_it_has_and_what_leaves_a_gap(host: AgentHost) -> None:
    spec = process_fields(["cat"], 1, {"stdin": 2})
    host.call(Op.CREATE, [(Tag.CONTAINER, "a"), (Tag.PROCESS_SPEC, spec)])
    assert host.input_limits[2][0] == 0  # told before CREATE was answered
    host.ack(1)
    start(host, "a")
    host.write(2, b"hello ", 0)
    host.write(2, b"hello ", 0)
    host.write(2, b"gap", 60)
    host.write(2, b"lo world", 3)
    host.write(2, b"", 11, eof=True)
    host.until(lambda: host.outputs[1].ended)
    assert host.outputs[1].text() == "hello world"
    assert host.input_limits[2][0] == 11
    assert host.input_limits[2][2]


def test_input_window_bounds_what_the_agent_keeps(host: AgentHost) -> None:
    spec = process_fields(["sleep", "1000"], 1, {"stdin": 2})
    host.call(Op.CREATE, [(Tag.CONTAINER, "a"), (Tag.PROCESS_SPEC, spec)])
    host.ack(1)
    start(host, "a")
    sent = 0
    for _ in range(100):
        host.write(2, bytes(MAX_PAYLOAD_BYTES), sent)  # window or not
        sent += MAX_PAYLOAD_BYTES
    host.idle(0.2)
    limit = host.input_limits[2][1]
    assert limit <= 4 * 65536  # pipe and buffer
    host.call(Op.SIGNAL, [(Tag.CONTAINER, "a"), (Tag.PROCESS_ID, "init"), (Tag.SIGNAL, 9)])
    host.until(lambda: host.input_limits[2][2])


def test_process_that_reads_no_more_swallows_its_input(host: AgentHost) -> None:
    spec = process_fields(["sh", "-c", "exec <&-; exec sleep 1000"], 1, {"stdin": 2})
    host.call(Op.CREATE, [(Tag.CONTAINER, "a"), (Tag.PROCESS_SPEC, spec)])
    host.ack(1)
    start(host, "a")
    sent = 0
    while sent < 400_000:
        host.until(lambda: host.input_limits[2][1] > sent)  # noqa: B023
        part = min(host.input_limits[2][1] - sent, 16000)
        host.write(2, bytes(part), sent)
        sent += part
    host.write(2, b"", sent, eof=True)
    host.until(lambda: host.input_limits[2][2])


def test_stream_ids_are_not_used_twice(host: AgentHost) -> None:
    create(host, "a", "cat", stream=1)
    with pytest.raises(RequestError) as taken:
        create(host, "b", "cat", stream=1)
    assert taken.value.errno == errno.EEXIST
    create(host, "b", "cat", stream=2)  # nothing of the first attempt has stayed


def test_output_of_two_processes_stays_apart(host: AgentHost) -> None:
    create(host, "a", "sleep", "1000", stream=1, extra=[])
    start(host, "a")
    for n in range(2, 12):
        spec = process_fields(["sh", "-c", f"seq 1 20000; echo {n} >&2"], n, {})
        host.call(
            Op.EXEC,
            [(Tag.CONTAINER, "a"), (Tag.PROCESS_ID, f"x{n}"), (Tag.PROCESS_SPEC, spec)],
        )
        host.ack(n)
    host.until(lambda: all(host.outputs[n].ended for n in range(2, 12)))
    for n in range(2, 12):
        assert host.outputs[n].text(1) == numbers(20000)
        assert host.outputs[n].text(2) == f"{n}\n"


def test_acknowledgement_of_what_was_never_sent_is_ignored(host: AgentHost) -> None:
    create(host, "a", "echo", "kept", stream=1)
    window = struct.pack("<I", 1 << 20)
    host.send(frame(FrameType.ACK, window, stream=1, offset=10**12))
    host.send(frame(FrameType.ACK, b"", stream=1, offset=0))
    host.send(frame(FrameType.ACK, window, stream=999, offset=0))
    start(host, "a")
    host.until(lambda: host.outputs[1].ended)
    assert host.outputs[1].text() == "kept\n"
