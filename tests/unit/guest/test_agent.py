"""The typed client: what it writes is what the agent reads."""

import asyncio
import time

import pytest

from app.core.errors import GuestFailed, InvalidArgument
from app.guest.agent import Agent
from app.guest.agent_types import (
    RLIMIT_INFINITY,
    ContainerSpec,
    GuestFile,
    Limits,
    ProcessExited,
    ProcessSpec,
    Rlimit,
    Tmpfs,
    container_fields,
    limit_fields,
    process_fields,
)
from app.guest.channel import GuestChannel
from app.guest.fake import FakeGuest
from app.guest.fields import Fields, encode_fields, signed
from app.guest.protocol import Op, Tag
from tests.unit.guest.channel_lab import OUTPUT, launch, read_all

PROCESS = ProcessSpec(
    ("sh", "-c", "exit"),
    output_stream=7,
    env=("A=1", "B=zwei"),
    cwd="/srv",
    user="1000:1000",
    groups=("audio", "20"),
    tty=True,
    rows=24,
    columns=80,
    stdin_stream=8,
    capabilities=0xA80425FB,
    no_new_privileges=True,
    rlimits=(Rlimit(7, 1024, RLIMIT_INFINITY),),
    oom_score_adj=-500,
)


def test_process_fields_carry_everything() -> None:
    fields = Fields(encode_fields(process_fields(PROCESS)))
    assert fields.texts(Tag.ARG) == ["sh", "-c", "exit"]
    assert fields.texts(Tag.ENV) == ["A=1", "B=zwei"]
    assert (fields.text(Tag.CWD), fields.text(Tag.USER)) == ("/srv", "1000:1000")
    assert fields.texts(Tag.GROUP) == ["audio", "20"]
    assert (fields.flag(Tag.TTY), fields.flag(Tag.NO_NEW_PRIVILEGES)) == (True, True)
    assert (fields.number(Tag.ROWS), fields.number(Tag.COLUMNS)) == (24, 80)
    assert (fields.number(Tag.STDIN_STREAM), fields.number(Tag.OUTPUT_STREAM)) == (8, 7)
    assert fields.number(Tag.CAPABILITIES) == 0xA80425FB
    assert signed(fields.number(Tag.OOM_SCORE_ADJ)) == -500
    limit = fields.group(Tag.RLIMIT)
    assert [limit.number(tag) for tag in (Tag.RESOURCE, Tag.SOFT, Tag.HARD)] == [
        7,
        1024,
        RLIMIT_INFINITY,
    ]


def test_container_fields_carry_everything() -> None:
    spec = ContainerSpec(
        "c1",
        "web",
        ("layer0", "layer1"),
        "scratch0",
        PROCESS,
        domainname="example.org",
        spill_bytes=1 << 26,
        read_only_root=True,
        init=True,
        limits=Limits(memory_max_bytes=1 << 28, pids_max=100),
        seccomp=b"\0" * 16,
        masked_paths=("/proc/kcore",),
        read_only_paths=("/proc/sys",),
        tmpfs=(Tmpfs("/run", "size=64k"),),
        shm_bytes=1 << 20,
        files=(GuestFile("/etc/hosts", b"127.0.0.1 localhost\n", 0o600),),
        sysctls=(("net.core.somaxconn", "1024"),),
    )
    fields = Fields(encode_fields(container_fields(spec)))
    assert (fields.text(Tag.CONTAINER), fields.text(Tag.HOSTNAME)) == ("c1", "web")
    assert fields.text(Tag.DOMAINNAME) == "example.org"
    assert fields.texts(Tag.LAYER) == ["layer0", "layer1"]
    assert fields.text(Tag.SCRATCH) == "scratch0"
    assert fields.number(Tag.SPILL_BYTES) == 1 << 26
    assert (fields.flag(Tag.READ_ONLY_ROOT), fields.flag(Tag.INIT)) == (True, True)
    assert (fields.number(Tag.MEMORY_MAX_BYTES), fields.number(Tag.PIDS_MAX)) == (1 << 28, 100)
    assert Tag.CPU_QUOTA_US not in fields
    assert fields.data(Tag.SECCOMP) == b"\0" * 16
    assert fields.texts(Tag.MASKED_PATH) == ["/proc/kcore"]
    assert fields.texts(Tag.READ_ONLY_PATH) == ["/proc/sys"]
    tmpfs = fields.group(Tag.TMPFS)
    assert (tmpfs.text(Tag.PATH), tmpfs.text(Tag.OPTIONS)) == ("/run", "size=64k")
    assert fields.number(Tag.SHM_BYTES) == 1 << 20
    file = fields.group(Tag.FILE)
    assert (file.text(Tag.PATH), file.number(Tag.MODE)) == ("/etc/hosts", 0o600)
    assert file.data(Tag.DATA) == b"127.0.0.1 localhost\n"
    sysctl = fields.group(Tag.SYSCTL)
    assert (sysctl.text(Tag.NAME), sysctl.text(Tag.VALUE)) == ("net.core.somaxconn", "1024")
    assert fields.group(Tag.PROCESS_SPEC).number(Tag.OUTPUT_STREAM) == 7


def test_no_limit_is_no_field() -> None:
    assert limit_fields(Limits()) == []
    assert limit_fields(Limits(cpu_quota_us=50_000, cpu_period_us=100_000)) == [
        (Tag.CPU_QUOTA_US, 50_000),
        (Tag.CPU_PERIOD_US, 100_000),
    ]


async def test_argument_with_nul_is_refused_before_it_is_sent(
    guest: FakeGuest, channel: GuestChannel
) -> None:
    with pytest.raises(InvalidArgument, match="ARG"):
        await launch(channel, "echo", "a\0b")
    assert guest.runs == []


OF_FILES = {Op.STAT_PATH, Op.READ_TREE, Op.WRITE_TREE, Op.LIST_CHANGES}  # `trees` asks for these


async def test_every_operation_reaches_the_guest(guest: FakeGuest, channel: GuestChannel) -> None:
    agent = Agent(channel)
    await agent.quiesce()
    assert guest.machine.is_quiesced
    await agent.await_memory(1 << 30)
    assert guest.machine.memory_bytes == 1 << 30
    now_ns = time.time_ns()
    assert abs(await agent.set_clock(now_ns + 10**12) - now_ns) < 10**10
    assert abs(guest.clock_ns() - now_ns - 10**12) < 10**10
    await agent.seed_entropy(bytes(64))
    assert guest.machine.entropy_bytes == 64
    process = ProcessSpec(("trap", "9"), OUTPUT, tty=True)
    created = await agent.create(ContainerSpec("c1", "host", ("layer",), "scratch", process))
    init = guest.containers["c1"].init
    assert created.pid == init.pid
    assert [stage.name for stage in created.stages] == ["mount", "namespaces"]
    await agent.start("c1")
    await agent.resize("c1", rows=30, columns=100)
    assert (init.rows, init.columns) == (30, 100)
    await agent.update("c1", Limits(memory_max_bytes=1 << 27))
    stats = await agent.stats("c1")
    assert (stats.memory_limit_bytes, stats.pids) == (1 << 27, 1)
    assert await agent.exec("c1", "x", ProcessSpec(("sleep", "100"), 11)) > created.pid
    assert (await agent.stats("c1")).pids == 2
    listed = await agent.processes("c1")
    assert [each.args for each in listed.processes] == [("trap", "9"), ("sleep", "100")]
    guest.containers["c1"].memory_bytes = 5000
    assert await agent.reclaim("c1", 4096) == 4096
    assert await agent.reclaim("c1", 4096) == 904
    await agent.freeze("c1")
    assert not guest.containers["c1"].thawed.is_set()
    await agent.thaw("c1")
    await agent.signal("c1", 15)
    event = await agent.next_event()
    assert isinstance(event, ProcessExited)
    assert (event.container_id, event.process_id, event.exit_code) == ("c1", "init", 9)
    await agent.delete("c1")
    assert "c1" not in guest.containers
    await agent.power_off()
    await guest.powered_off.wait()
    assert set(guest.runs) == set(Op) - OF_FILES


async def test_frozen_container_writes_nothing(guest: FakeGuest, channel: GuestChannel) -> None:
    agent = await launch(channel, "loop", "0", "100000")
    await agent.freeze("c1")
    end_offset = guest.machine.outputs[OUTPUT].end
    await agent.set_clock(10**18)
    assert guest.machine.outputs[OUTPUT].end == end_offset
    await agent.thaw("c1")


@pytest.mark.parametrize(
    ("script", "output", "exit_code"),
    [
        ("echo a; echo b", b"a\nb\n", 0),
        ("echo $NAME && exit 4", b"value\n", 4),
        ("for i in $(seq 1 3); do echo n$i; done", b"n1\nn2\nn3\n", 0),
        ("false && echo no", b"", 1),
        ("nonsense", b"sh: nonsense: not found\n", 127),
        ("sleep 0; exec echo done", b"done\n", 0),
    ],
)
async def test_fake_shell(
    channel: GuestChannel, script: str, output: bytes, exit_code: int
) -> None:
    agent = Agent(channel)
    process = ProcessSpec(("sh", "-c", script), OUTPUT, env=("NAME=value",))
    await agent.create(ContainerSpec("c1", "host", ("layer",), "scratch", process))
    await agent.start("c1")
    assert await read_all(channel.open_output(OUTPUT)) == output
    event = await agent.next_event()
    assert isinstance(event, ProcessExited)
    assert event.exit_code == exit_code


async def test_fake_init_ignores_what_it_does_not_handle(channel: GuestChannel) -> None:
    agent = await launch(channel, "sleep", "100")
    await agent.signal("c1", 15)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await agent.next_event()
    await agent.signal("c1", 9)
    event = await agent.next_event()
    assert isinstance(event, ProcessExited)
    assert (event.exit_code, event.signal) == (137, 9)


async def test_fake_crash_is_a_signal(channel: GuestChannel) -> None:
    agent = await launch(channel, "crash")
    event = await agent.next_event()
    assert isinstance(event, ProcessExited)
    assert (event.exit_code, event.signal) == (139, 11)


async def test_fake_program_that_fails_ends_with_1(guest: FakeGuest, channel: GuestChannel) -> None:
    agent = await launch(channel, "exit", "no number")
    event = await agent.next_event()
    assert isinstance(event, ProcessExited)
    assert event.exit_code == 1


async def test_refused_operation_names_it(channel: GuestChannel) -> None:
    agent = await launch(channel, "sleep", "100")
    with pytest.raises(GuestFailed, match="no process ghost"):
        await agent.signal("c1", 15, process_id="ghost")


async def test_hundreds_of_guests_at_once() -> None:
    guests = [FakeGuest() for _ in range(300)]
    channels = [GuestChannel(guest.connect, name=str(n)) for n, guest in enumerate(guests)]
    async with asyncio.timeout(15), asyncio.TaskGroup() as group:
        runs = [group.create_task(channel.run()) for channel in channels]
        async with asyncio.TaskGroup() as containers:
            for channel in channels:
                containers.create_task(_one_container(channel))
        for run in runs:
            run.cancel()
    for guest in guests:
        await guest.close()


async def _one_container(channel: GuestChannel) -> None:
    agent = await launch(channel, "echo", channel.name)
    assert await read_all(channel.open_output(OUTPUT)) == channel.name.encode() + b"\n"
    await agent.delete("c1")
