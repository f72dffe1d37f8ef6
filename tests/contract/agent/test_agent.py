"""Requests, processes and events of docs/channel.md, from the real agent and from the fake.

The real agent runs as an ordinary process here (`make native`); what needs namespaces and cgroups
is tested in real VMs.
"""

import errno
import time

import pytest

from app.guest.agent_types import container_fields
from app.guest.fields import FieldList, Fields, encode_fields
from app.guest.frames import encode_frame, encode_message
from app.guest.hello import ProcessInfo
from app.guest.protocol import MAX_FRAME_BYTES, EventKind, FrameType, Op, ProcessState, Tag
from tests.contract.agent.host import (
    CONTAINER,
    OUTPUT,
    WIDE_WINDOW_BYTES,
    AgentUnderTest,
    Connect,
    RawHost,
    container_spec,
    exec_fields,
    joined,
    reconnect,
)

SIGTERM, SIGKILL = 15, 9
pytestmark = pytest.mark.timeout(120)  # the first one builds the agent


def process(host: RawHost, process_id: str) -> ProcessInfo:
    return next(info for info in host.hello.processes if info.process_id == process_id)


# --- Requests -----------------------------------------------------------------------------------


async def test_unknown_operation_is_refused(host: RawHost) -> None:
    assert (await host.request(999, [])).number(Tag.ERRNO) == errno.ENOSYS


async def test_unknown_container_is_refused(host: RawHost) -> None:
    answer = await host.request(Op.START, [(Tag.CONTAINER, CONTAINER)])
    assert answer.number(Tag.ERRNO) == errno.ENOENT
    assert answer.text(Tag.MESSAGE)


@pytest.mark.parametrize("payload", [b"", b"\x0c", b"\x0c\x00\x00\x00\xff\xff\xff\xff", bytes(300)])
async def test_malformed_request_is_refused(host: RawHost, payload: bytes) -> None:
    number = host.next_id()
    await host.send(encode_frame(FrameType.REQUEST, payload, offset=number))
    assert (await host.answer(number)).number(Tag.ERRNO) != 0
    await host.settle()


async def test_create_without_arguments_is_refused(host: RawHost) -> None:
    answer = await host.request(Op.CREATE, container_fields(container_spec()))
    assert answer.number(Tag.ERRNO) == errno.EINVAL


async def test_create_twice_is_refused(host: RawHost) -> None:
    await host.run("sleep", "100")
    answer = await host.request(Op.CREATE, container_fields(container_spec("sleep", "1")))
    assert answer.number(Tag.ERRNO) == errno.EEXIST


async def test_start_twice_is_refused(host: RawHost) -> None:
    await host.run("sleep", "100")
    assert (await host.request(Op.START, [(Tag.CONTAINER, CONTAINER)])).number(Tag.ERRNO) != 0


async def test_start_may_be_sent_behind_create(host: RawHost) -> None:
    create = [(Tag.OP, Op.CREATE), *container_fields(container_spec("echo", "early"))]
    start: FieldList = [(Tag.OP, Op.START), (Tag.CONTAINER, CONTAINER)]
    numbers = [host.next_id(), host.next_id(), host.next_id()]
    for number, fields in zip(numbers, (create, start, start), strict=True):
        await host.send(
            *encode_message(FrameType.REQUEST, encode_fields(fields), offset=number),
        )
    errors = [(await host.answer(number)).number(Tag.ERRNO) for number in numbers]
    assert errors == [0, 0, errno.EALREADY]
    assert joined(await host.output(OUTPUT)) == b"early\n"


async def test_start_of_a_missing_program_tells_errno_and_name(host: RawHost) -> None:
    await host.ok(Op.CREATE, container_fields(container_spec("no-such-program")))
    answer = await host.request(Op.START, [(Tag.CONTAINER, CONTAINER)])
    assert answer.number(Tag.ERRNO) == errno.ENOENT
    assert "no-such-program" in answer.text(Tag.MESSAGE)


async def test_exec_of_a_missing_program_leaves_nothing(host: RawHost, connect: Connect) -> None:
    await host.run("sleep", "100")
    answer = await host.exec("x", "no-such-program", output=11, stdin=12)
    assert answer.number(Tag.ERRNO) == errno.ENOENT
    again = await reconnect(host, connect)
    assert [info.process_id for info in again.hello.processes] == ["init"]
    assert [info.stream_id for info in again.hello.streams] == [OUTPUT]


async def test_exec_with_a_stream_in_use_is_refused(host: RawHost) -> None:
    await host.run("sleep", "100")
    assert (await host.exec("x", "true", output=OUTPUT)).number(Tag.ERRNO) == errno.EEXIST


async def test_request_in_fragments_with_others_between(host: RawHost) -> None:
    long = "x" * (3 * MAX_FRAME_BYTES)
    payload = encode_fields([(Tag.OP, Op.CREATE), *container_fields(container_spec("echo", long))])
    number = host.next_id()
    for frame in encode_message(FrameType.REQUEST, payload, offset=number):
        await host.send(frame)
        await host.settle()
    assert (await host.answer(number)).number(Tag.ERRNO) == 0
    await host.ok(Op.START, [(Tag.CONTAINER, CONTAINER)])
    assert joined(await host.output(OUTPUT)) == long.encode() + b"\n"


async def test_repeated_request_is_answered_again_not_run_again(host: RawHost) -> None:
    await host.run("sleep", "100")
    number = host.next_id()
    fields = exec_fields("x", "true", output=11)
    first = await host.ok(Op.EXEC, fields, request_id=number)
    assert await host.ok(Op.EXEC, fields, request_id=number) == first


async def test_request_under_way_is_not_started_twice(host: RawHost, connect: Connect) -> None:
    await host.run("sleep", "100")
    number = host.next_id()
    payload = encode_fields([(Tag.OP, Op.EXEC), *exec_fields("x", "cat", output=11, stdin=12)])
    frame = encode_frame(FrameType.REQUEST, payload, offset=number)
    await host.send(frame, frame, frame)
    pid = (await host.answer(number)).number(Tag.PID)
    again = await reconnect(host, connect)
    assert (await again.ok(Op.EXEC, [], request_id=number)).number(Tag.PID) == pid
    assert process(again, "x").pid == pid


async def test_answer_is_kept_over_reconnect_and_63_others(host: RawHost, connect: Connect) -> None:
    await host.run("sleep", "100")
    number = host.next_id()
    fields = exec_fields("x", "true", output=11)
    first = await host.ok(Op.EXEC, fields, request_id=number)
    for _ in range(63):
        await host.request(Op.START, [(Tag.CONTAINER, "other")])
    again = await reconnect(host, connect)
    assert await again.ok(Op.EXEC, fields, request_id=number) == first


async def test_set_clock_tells_the_time_before(host: RawHost) -> None:
    now_ns = time.time_ns()
    result = await host.ok(Op.SET_CLOCK, [(Tag.TIME_NS, now_ns)])
    assert abs(result.number(Tag.TIME_NS) - now_ns) < 10**10


async def test_seed_entropy_wants_bytes(host: RawHost) -> None:
    await host.ok(Op.SEED_ENTROPY, [(Tag.DATA, bytes(64))])
    assert (await host.request(Op.SEED_ENTROPY, [(Tag.DATA, b"")])).number(Tag.ERRNO) != 0


# --- Processes and events -----------------------------------------------------------------------


async def test_exit_is_told_with_its_code(host: RawHost) -> None:
    before_ns = time.time_ns()
    await host.run("sh", "-c", "exit 3")
    event = Fields((await host.event(EventKind.PROCESS_EXITED)).payload)
    assert event.text(Tag.CONTAINER) == CONTAINER
    assert event.text(Tag.PROCESS_ID) == "init"
    assert (event.number(Tag.EXIT_CODE), event.number(Tag.SIGNAL)) == (3, 0)
    assert not event.flag(Tag.OOM_KILLED)
    assert before_ns - 10**9 < event.number(Tag.TIME_NS) < time.time_ns() + 10**9


async def test_death_by_signal_is_told_as_128_and_signal(host: RawHost) -> None:
    await host.run("sleep", "100")
    await host.signal(SIGKILL)
    event = Fields((await host.event(EventKind.PROCESS_EXITED)).payload)
    assert (event.number(Tag.EXIT_CODE), event.number(Tag.SIGNAL)) == (137, SIGKILL)


async def test_signal_to_an_ended_process_is_esrch(host: RawHost) -> None:
    await host.run("true")
    await host.event(EventKind.PROCESS_EXITED)
    assert (await host.signal(SIGTERM)).number(Tag.ERRNO) == errno.ESRCH


async def test_resize_wants_a_terminal(host: RawHost) -> None:
    await host.run("sleep", "100")
    assert (await host.resize(30, 90)).number(Tag.ERRNO) == errno.ENOTTY


async def test_resize_of_a_terminal(host: RawHost) -> None:
    await host.run("sleep", "100", tty=True)
    assert (await host.resize(30, 90)).number(Tag.ERRNO) == 0


async def test_events_come_again_until_acknowledged(host: RawHost, connect: Connect) -> None:
    await host.run("sleep", "100")
    for index in range(3):
        assert (await host.exec(f"x{index}", "true", output=11 + index)).number(Tag.ERRNO) == 0
        await host.event(EventKind.PROCESS_EXITED)
    second = await reconnect(host, connect)
    events = [await second.event(EventKind.PROCESS_EXITED) for _ in range(3)]
    assert [Fields(e.payload).text(Tag.PROCESS_ID) for e in events] == ["x0", "x1", "x2"]
    numbers = [event.offset for event in events]
    assert numbers == sorted(set(numbers))
    await second.send(encode_frame(FrameType.EVENT_ACK, offset=numbers[1]))
    await second.settle()
    third = await reconnect(second, connect)
    await third.settle()
    assert [frame.offset for frame in third.seen if frame.type is FrameType.EVENT] == numbers[2:]


async def test_hello_tells_every_process(host: RawHost, connect: Connect) -> None:
    await host.ok(Op.CREATE, container_fields(container_spec("sh", "-c", "sleep 100; exit 0")))
    created = await reconnect(host, connect)
    assert process(created, "init").state is ProcessState.CREATED
    await created.ok(Op.START, [(Tag.CONTAINER, CONTAINER)])
    pid = (await created.exec("x", "sh", "-c", "exit 5", output=11)).number(Tag.PID)
    event = await created.event(EventKind.PROCESS_EXITED)
    ended = await reconnect(created, connect)
    assert process(ended, "init").state is ProcessState.RUNNING
    info = process(ended, "x")
    assert (info.state, info.pid, info.exit_code) == (ProcessState.EXITED, pid, 5)
    await ended.send(encode_frame(FrameType.EVENT_ACK, offset=event.offset))
    await ended.settle()
    forgotten = await reconnect(ended, connect)
    assert [info.process_id for info in forgotten.hello.processes] == ["init"]


async def test_init_stays_known_after_its_exit_is_acknowledged(
    host: RawHost, connect: Connect
) -> None:
    await host.run("sh", "-c", "exit 7")
    event = await host.event(EventKind.PROCESS_EXITED)
    await host.send(encode_frame(FrameType.EVENT_ACK, offset=event.offset))
    await host.settle()
    again = await reconnect(host, connect)
    assert process(again, "init").exit_code == 7


async def test_end_of_init_ends_the_others(host: RawHost) -> None:
    await host.run("sleep", "100")
    await host.exec("x", "sleep", "100", output=11)
    await host.signal(SIGKILL)
    ended = {}
    for _ in range(2):
        event = Fields((await host.event(EventKind.PROCESS_EXITED)).payload)
        ended[event.text(Tag.PROCESS_ID)] = event.number(Tag.EXIT_CODE)
    assert ended == {"init": 137, "x": 137}


async def test_delete_kills_and_keeps_what_was_not_delivered(
    host: RawHost, connect: Connect
) -> None:
    await host.run("sh", "-c", "echo last words; sleep 100")
    await host.ack(OUTPUT, 0, WIDE_WINDOW_BYTES)
    await host.data(OUTPUT)
    await host.ok(Op.DELETE, [(Tag.CONTAINER, CONTAINER)])
    again = await reconnect(host, connect)
    assert again.hello.processes == ()
    event = Fields((await again.event(EventKind.PROCESS_EXITED)).payload)
    assert event.number(Tag.EXIT_CODE) == 137
    assert joined(await again.output(OUTPUT)) == b"last words\n"
    await again.ok(Op.CREATE, container_fields(container_spec("true", output=21)))


async def test_freeze_holds_and_thaw_lets_go(agent: AgentUnderTest, host: RawHost) -> None:
    await host.run("sleep", "100")
    container: FieldList = [(Tag.CONTAINER, CONTAINER)]
    frozen = (await host.request(Op.FREEZE, container)).number(Tag.ERRNO)
    thawed = (await host.request(Op.THAW, container)).number(Tag.ERRNO)
    assert frozen == thawed == (0 if agent.has_cgroups else errno.EOPNOTSUPP)


async def test_quiesce_forgets_the_stages(
    agent: AgentUnderTest, host: RawHost, connect: Connect
) -> None:
    await host.ok(Op.QUIESCE, [])
    again = await reconnect(host, connect)
    assert again.hello.stages == ()
    await again.ok(Op.QUIESCE, [])


async def test_quiesce_is_refused_while_there_is_a_container(host: RawHost) -> None:
    await host.run("sleep", "100")
    answer = await host.request(Op.QUIESCE, [])
    assert answer.number(Tag.ERRNO) == errno.EBUSY
    await host.ok(Op.DELETE, [(Tag.CONTAINER, CONTAINER)])
    await host.ok(Op.QUIESCE, [])


async def test_await_memory(agent: AgentUnderTest, host: RawHost) -> None:
    answer = await host.request(Op.AWAIT_MEMORY, [(Tag.MEMORY_BYTES, 1 << 28)])
    assert answer.number(Tag.ERRNO) == (0 if agent.has_cgroups else errno.EOPNOTSUPP)
    assert (await host.request(Op.AWAIT_MEMORY, [])).number(Tag.ERRNO) == errno.EINVAL


async def test_reclaim(agent: AgentUnderTest, host: RawHost) -> None:
    fields: FieldList = [(Tag.CONTAINER, CONTAINER), (Tag.MEMORY_BYTES, 1 << 30)]
    assert (await host.request(Op.RECLAIM, fields)).number(Tag.ERRNO) == errno.ENOENT
    await host.run("sleep", "100")
    answer = await host.request(Op.RECLAIM, fields)
    if agent.has_cgroups:
        assert 0 <= answer.number(Tag.MEMORY_BYTES) <= 1 << 30
    else:
        assert answer.number(Tag.ERRNO) == errno.EOPNOTSUPP
    assert (await host.request(Op.RECLAIM, fields[:1])).number(Tag.ERRNO) == errno.EINVAL


async def test_stats_and_limits(agent: AgentUnderTest, host: RawHost) -> None:
    await host.run("sleep", "100")
    limit: FieldList = [(Tag.CONTAINER, CONTAINER), (Tag.MEMORY_MAX_BYTES, 1 << 26)]
    assert ((await host.request(Op.UPDATE, limit)).number(Tag.ERRNO) == 0) == agent.has_cgroups
    answer = await host.request(Op.STATS, [(Tag.CONTAINER, CONTAINER)])
    if agent.has_cgroups:
        assert answer.number(Tag.STAT_PIDS) == 1
        assert answer.number(Tag.STAT_MEMORY_LIMIT_BYTES) == 1 << 26
    else:
        assert answer.number(Tag.ERRNO) == errno.EOPNOTSUPP


async def test_power_off_answers_then_ends(host: RawHost) -> None:
    await host.ok(Op.POWER_OFF, [])
    await host.take_closed()
