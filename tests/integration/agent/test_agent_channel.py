"""The real agent's channel, requests and journal, run as an ordinary process."""

import errno
import os
import socket
import time
from pathlib import Path

import pytest

from app.guest.protocol import MAX_FRAME_BYTES, FrameType, Op, Tag
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
from tests.integration.agent_lab import NativeAgent, create, process_fields, run, start

pytestmark = pytest.mark.timeout(60)


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


def test_power_off_is_answered_first(agent: NativeAgent) -> None:
    agent.host.call(Op.POWER_OFF, [])
    assert agent.process.wait(5) == 0
