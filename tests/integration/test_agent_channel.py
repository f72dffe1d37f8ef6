"""The real agent's channel, streams, spool and journal, run as an ordinary process."""

import errno
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.guest.protocol import MAX_FRAME_BYTES, MAX_PAYLOAD_BYTES, FrameType, Op, Tag
from tests.integration.agent_driver import (
    FLAG_MORE,
    AgentHost,
    Fields,
    RequestError,
    decode,
    encode,
    frame,
    number,
)
from tests.integration.agent_lab import NativeAgent, make_agent, process_fields

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent built as an ordinary process."""
    return make_agent(tmp_path_factory.mktemp("agent"))


@pytest.fixture
def agent(binary: Path, tmp_path: Path) -> Iterator[NativeAgent]:
    """A running agent with a connected host."""
    agent = NativeAgent(binary, tmp_path)
    try:
        agent.host.open()
        yield agent
    finally:
        agent.close()


@pytest.fixture
def host(agent: NativeAgent) -> AgentHost:
    """The connected host."""
    return agent.host


def create(
    host: AgentHost, name: str, *args: str, stream: int, extra: Fields | None = None
) -> None:
    """CREATE with a window for its output."""
    spec = process_fields(list(args), stream, {})
    host.call(Op.CREATE, [(Tag.CONTAINER, name), (Tag.PROCESS_SPEC, spec), *(extra or [])])
    host.ack(stream)


def start(host: AgentHost, name: str) -> None:
    """START."""
    host.call(Op.START, [(Tag.CONTAINER, name)])


def run(host: AgentHost, name: str, *args: str, stream: int, extra: Fields | None = None) -> str:
    """A container from CREATE to the end of its output."""
    create(host, name, *args, stream=stream, extra=extra)
    start(host, name)
    host.until(lambda: host.outputs[stream].ended and host.exit_event(name) is not None)
    return host.outputs[stream].text()


def numbers(count: int) -> str:
    """What `seq 1 count` prints."""
    return "".join(f"{n}\n" for n in range(1, count + 1))


def test_no_common_version_is_answered_with_zero(agent: NativeAgent) -> None:
    host = agent.host
    host.close()
    host._socket = host._connect()
    host._socket.settimeout(0.05)
    nonce = os.urandom(16)
    hello = encode([(Tag.NONCE, nonce), (Tag.VERSION_MIN, 7), (Tag.VERSION_MAX, 9)])
    host.hello = []
    host.send(bytes(MAX_FRAME_BYTES) + frame(FrameType.HELLO, hello))
    host.until(lambda: host._find_hello(encode([(Tag.NONCE, nonce)])))
    answer = dict(decode(next(host._frames()).payload))
    assert number(answer[Tag.VERSION]) == 0
    host.send(frame(FrameType.PING, offset=5))
    host.idle(0.2)
    assert host.pongs == []  # such a connection is of no further use
    host.open()


def test_ping_is_answered_with_its_token(host: AgentHost) -> None:
    host.send(frame(FrameType.PING, offset=2**63 + 5))
    host.until(lambda: host.pongs == [2**63 + 5])


def test_repeated_request_is_answered_again_and_run_once(host: AgentHost, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    spec = process_fields(["sh", "-c", f"echo ran >> {mark}"], 1, {})
    fields: Fields = [(Tag.CONTAINER, "a"), (Tag.PROCESS_SPEC, spec)]
    request = host.post(Op.CREATE, fields)
    first = host.result(request)
    host.answers.clear()
    host.post_again(request, Op.CREATE, fields)
    assert host.result(request) == first
    begin = host.post(Op.START, [(Tag.CONTAINER, "a")])
    host.close()
    host.open()
    host.post_again(begin, Op.START, [(Tag.CONTAINER, "a")])
    host.result(begin)
    host.until(lambda: host.exit_event("a") is not None)
    assert mark.read_text() == "ran\n"


def test_request_under_way_is_not_started_twice(host: AgentHost) -> None:
    spec = process_fields(["cat"], 1, {})
    fields: Fields = [(Tag.CONTAINER, "a"), (Tag.PROCESS_SPEC, spec)]
    request = host.post(Op.CREATE, fields)
    for _ in range(20):
        host.post_again(request, Op.CREATE, fields)
    host.result(request)
    with pytest.raises(RequestError) as exists:
        host.call(Op.CREATE, fields)
    assert exists.value.errno == errno.EEXIST


def test_long_request_comes_in_fragments(host: AgentHost) -> None:
    text = run(host, "a", "printf", "%s", "x" * 100_000, stream=1)
    assert text == "x" * 100_000


def test_too_long_request_is_refused(host: AgentHost) -> None:
    with pytest.raises(RequestError) as refused:
        host.call(Op.CREATE, [(Tag.CONTAINER, "a"), (Tag.DATA, bytes(300_000))])
    assert refused.value.errno == errno.EMSGSIZE
    assert run(host, "a", "echo", "fine", stream=1) == "fine\n"


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ([(Tag.CONTAINER, "a/b")], "CONTAINER"),
        ([(Tag.CONTAINER, "a")], "PROCESS_SPEC"),
        ([(Tag.CONTAINER, "a"), (Tag.PROCESS_SPEC, b"\1")], "PROCESS_SPEC"),
        ([(Tag.CONTAINER, "a"), (Tag.PROCESS_SPEC, [(Tag.ARG, "x")])], "OUTPUT_STREAM"),
        ([(Tag.CONTAINER, "a"), (Tag.PROCESS_SPEC, [(Tag.OUTPUT_STREAM, 1)])], "ARG"),
        (
            [
                (Tag.CONTAINER, "a"),
                (
                    Tag.PROCESS_SPEC,
                    [(Tag.ARG, "x"), (Tag.OUTPUT_STREAM, 1), (Tag.CWD, "relative")],
                ),
            ],
            "not absolute",
        ),
    ],
)
def test_malformed_create_is_refused_with_a_reason(
    host: AgentHost, fields: Fields, part: str
) -> None:
    with pytest.raises(RequestError) as refused:
        host.call(Op.CREATE, fields)
    assert refused.value.errno == errno.EINVAL
    assert part in refused.value.message
    assert run(host, "a", "echo", "fine", stream=1) == "fine\n"


def test_unknown_operation_and_container(host: AgentHost) -> None:
    with pytest.raises(RequestError) as unknown:
        host.call(99, [])  # type: ignore[arg-type]
    assert unknown.value.errno == errno.ENOSYS
    with pytest.raises(RequestError) as missing:
        host.call(Op.START, [(Tag.CONTAINER, "ghost")])
    assert missing.value.errno == errno.ENOENT
    assert "ghost" in missing.value.message


def test_garbage_loses_the_stream_until_hello(host: AgentHost) -> None:
    create(host, "a", "cat", stream=1)
    host.send(b"garbage" + frame(FrameType.PING, offset=1))
    host.idle(0.2)
    assert host.pongs == []
    host.open()
    host.send(frame(FrameType.PING, offset=2))
    host.until(lambda: host.pongs == [2])
    start(host, "a")


def test_half_a_request_is_forgotten_with_its_connection(host: AgentHost) -> None:
    part = encode([(Tag.OP, int(Op.START)), (Tag.CONTAINER, "a")])
    host.send(frame(FrameType.REQUEST, part, flags=FLAG_MORE, offset=77))
    host.open()
    host.send(frame(FrameType.REQUEST, part, offset=78))
    host.until(lambda: 78 in host.answers)
    assert 77 not in host.answers


def test_events_come_again_until_they_are_acknowledged(host: AgentHost) -> None:
    run(host, "a", "true", stream=1)
    run(host, "b", "false", stream=2)
    last = max(host.events)
    host.events.clear()
    host.open()
    host.until(lambda: last in host.events)
    assert host.exit_event("a") is not None
    assert sorted(host.events) == list(host.events)  # in order
    host.send(frame(FrameType.EVENT_ACK, offset=last))
    host.events.clear()
    host.open()
    host.idle(0.2)
    assert host.events == {}


def test_exec_is_forgotten_when_its_end_is_acknowledged(host: AgentHost) -> None:
    create(host, "a", "sleep", "1000", stream=1, extra=[])
    start(host, "a")
    spec = process_fields(["true"], 2, {})
    host.call(Op.EXEC, [(Tag.CONTAINER, "a"), (Tag.PROCESS_ID, "x"), (Tag.PROCESS_SPEC, spec)])
    host.until(lambda: host.exit_event("a", "x") is not None)

    def listed() -> set[bytes]:
        host.open()
        return {dict(decode(v))[Tag.PROCESS_ID] for t, v in host.hello if t == Tag.PROCESS}

    assert listed() == {b"init", b"x"}
    host.send(frame(FrameType.EVENT_ACK, offset=max(host.events)))
    assert listed() == {b"init"}


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
    assert run_other(host) == "other\n"


def run_other(host: AgentHost) -> str:
    """Another container while the first is held back."""
    host.auto_ack = True
    return run(host, "other", "echo", "other", stream=50)


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
    spec = process_fields(["sh", "-c", "exec <&-; sleep 1000"], 1, {"stdin": 2})
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


def test_failed_start_leaves_an_ended_container(host: AgentHost) -> None:
    create(host, "a", "no-such-program", stream=1)
    with pytest.raises(RequestError) as missing:
        start(host, "a")
    assert missing.value.errno == errno.ENOENT
    host.until(lambda: host.outputs[1].ended)
    host.call(Op.DELETE, [(Tag.CONTAINER, "a")])
    assert host.exit_event("a") is None
    assert run(host, "a", "echo", "again", stream=2) == "again\n"


def test_host_that_never_reads_is_not_buffered_for(agent: NativeAgent) -> None:
    host = agent.host
    client = host._socket
    assert client is not None

    def resident_kib() -> int:
        status = Path(f"/proc/{agent.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    before = resident_kib()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    pings = b"".join(frame(FrameType.PING, offset=n) for n in range(10_000))
    sent, deadline = 0, time.monotonic() + 1
    while time.monotonic() < deadline:
        try:
            sent += client.send(pings)
        except BlockingIOError:
            time.sleep(0.01)  # the measurement: it must stay blocked
    assert resident_kib() - before < 2048
    assert sent < 20 << 20
    host.open()


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


def test_power_off_is_answered_first(agent: NativeAgent) -> None:
    agent.host.call(Op.POWER_OFF, [])
    assert agent.process.wait(5) == 0
