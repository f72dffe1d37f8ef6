"""The agent in a real VM: what programs in a container can observe, and what the host is told."""

import asyncio
import errno
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.guest.image import GuestImage, build_guest
from app.guest.protocol import Op, Tag
from tests.integration.agent_driver import RequestError, decode, number
from tests.integration.agent_lab import (
    AGENT_SOURCE,
    SCRATCH_DISKS,
    AgentVm,
    Disk,
    guest_cache,
    make_base_layer,
    make_scratch,
    require,
    stages,
)

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

MASKED = ("/proc/kcore", "/sys/firmware", "/proc/does-not-exist")
READ_ONLY = ("/proc/sys", "/proc/bus")
SIGKILL, SIGTERM, SIGUSR1 = 9, 15, 10


@pytest.fixture(scope="session")
def guest_image(tmp_path_factory: pytest.TempPathFactory) -> GuestImage:
    """The shipped guest, built from its LinuxKit file and the agent's sources."""
    require("gcc", "make", "apt-get", "dpkg-deb")
    return asyncio.run(
        build_guest(
            AGENT_SOURCE.parent / "slipway.yml",
            cache_dir=guest_cache(tmp_path_factory.mktemp("guest-cache")),
            agent_source_dir=AGENT_SOURCE,
            progress=lambda _line: None,
        )
    )


@pytest.fixture(scope="session")
def base_layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A busybox root file system."""
    return make_base_layer(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def vm(
    guest_image: GuestImage, base_layer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AgentVm]:
    """One VM for many containers, each with a scratch disk of its own."""
    directory = tmp_path_factory.mktemp("vm")
    disks = [Disk("base", base_layer)]
    for n in range(SCRATCH_DISKS):
        disks.append(Disk(f"scratch{n}", make_scratch(directory / f"scratch{n}"), read_only=False))
    machine = AgentVm(guest_image, directory, disks)
    try:
        machine.host.open()
        yield machine
    finally:
        machine.close()
        print(machine.console.read_text(errors="replace")[-4000:])  # noqa: T201  # on failure


def test_boot_tells_its_stages(vm: AgentVm) -> None:
    told = stages(vm.host.hello)
    assert list(told) == ["kernel", "mounts", "modules", "port"]
    assert list(told.values()) == sorted(told.values())


def test_root_is_mounted_as_docker_does(vm: AgentVm) -> None:
    box = vm.run(
        "mount",
        fields=[
            *((Tag.MASKED_PATH, path) for path in MASKED),
            *((Tag.READ_ONLY_PATH, path) for path in READ_ONLY),
            (Tag.TMPFS, [(Tag.PATH, "/cache/deep"), (Tag.OPTIONS, "rw,noexec,size=1m,mode=1777")]),
        ],
        shm_bytes=1 << 20,
    )
    mounts = {line.split()[2]: line for line in box.text.splitlines()}
    assert mounts["/"].startswith("overlay on / type overlay (rw,")
    assert "(ro,nosuid,nodev,noexec" in mounts["/sys"]
    assert "(ro,nosuid,nodev,noexec" in mounts["/sys/fs/cgroup"]
    assert "(rw,nosuid,nodev,noexec" in mounts["/proc"]
    assert "gid=5,mode=620,ptmxmode=666" in mounts["/dev/pts"]
    assert "size=1024k" in mounts["/dev/shm"]
    assert "mqueue" in mounts["/dev/mqueue"]
    assert "(rw,noexec" in mounts["/cache/deep"]
    assert "size=1024k" in mounts["/cache/deep"]
    assert "ro" in mounts["/sys/firmware"].split("(")[1].split(",")
    assert "/proc/kcore" in mounts
    assert all("(ro," in mounts[path] for path in READ_ONLY)
    assert set(mounts) == {
        "/", "/sys", "/sys/fs/cgroup", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue",
        "/cache/deep", "/sys/firmware", "/proc/kcore", *READ_ONLY,
    }  # fmt: skip


def test_host_name_files_and_sysctls_are_set(vm: AgentVm) -> None:
    text = vm.shell(
        "hostname; cat /etc/hosts /new/place; stat -c %a /new/place;"
        "cat /proc/sys/net/ipv4/ping_group_range; uname -n",
        hostname="box",
        fields=[
            (Tag.FILE, [(Tag.PATH, "/etc/hosts"), (Tag.DATA, b"127.0.0.1 localhost\n")]),
            (
                Tag.FILE,
                [(Tag.PATH, "/new/place"), (Tag.DATA, b"secret\n"), (Tag.MODE, 0o600)],
            ),
            (
                Tag.SYSCTL,
                [(Tag.NAME, "net.ipv4.ping_group_range"), (Tag.VALUE, "0 2147483647")],
            ),
        ],
    )
    assert text.splitlines() == [
        "box", "127.0.0.1 localhost", "secret", "600", "0\t2147483647", "box",
    ]  # fmt: skip


def test_container_is_alone_in_its_namespaces(vm: AgentVm) -> None:
    text = vm.shell("echo $$; ip -o link; cat /proc/self/cgroup; ls /proc | grep -c '^[0-9]'")
    lines = text.splitlines()
    assert lines[0] == "1"
    assert lines[1].startswith("1: lo: <LOOPBACK,UP,LOWER_UP>")
    assert lines[2:3] == ["0::/"]
    assert int(lines[3]) <= 4


def test_no_descriptor_of_the_agent_leaks(vm: AgentVm) -> None:
    assert vm.shell("ls /proc/self/fd | tr '\\n' ' ' 2>/dev/null || ls /proc/self/fd").split() in (
        ["0", "1", "2", "3"],  # 3 is the listing's own
    )


def test_devices_of_the_guest_are_out_of_reach(vm: AgentVm) -> None:
    text = vm.shell(
        "ls /dev; mknod /tmp/disk b 8 0; mknod /tmp/console c 5 1;"
        "for i in /tmp/disk /tmp/console; do head -c1 $i 2>&1 || echo refused; done;"
        "echo x > /dev/null; head -c3 /dev/zero | wc -c; head -c2 /dev/urandom | wc -c"
    )
    assert "core" in text
    assert "console" not in text.split("head")[0].split()  # no terminal, no console
    assert text.count("Operation not permitted") == 2
    assert text.splitlines()[-2:] == ["3", "2"]


def test_root_has_the_given_capabilities_only(vm: AgentVm) -> None:
    text = vm.shell("grep Cap /proc/self/status")
    found = dict(line.split(":\t") for line in text.splitlines())
    mask = "00000000a80425fb"
    assert found == {
        "CapInh": "0" * 16, "CapPrm": mask, "CapEff": mask, "CapBnd": mask, "CapAmb": "0" * 16,
    }  # fmt: skip


def test_other_users_have_the_bounding_set_only(vm: AgentVm) -> None:
    text = vm.shell("grep Cap /proc/self/status; id; echo $HOME", user="app")
    assert "CapEff:\t0000000000000000" in text
    assert "CapBnd:\t00000000a80425fb" in text
    assert "uid=1000(app) gid=1001(app) groups=1001(app),2000(extra)" in text
    assert text.endswith("/home/app\n")


def test_numeric_user_and_added_groups(vm: AgentVm) -> None:
    text = vm.shell("id", user="4711:4712", process=[(Tag.GROUP, "extra"), (Tag.GROUP, "99")])
    assert text.strip() == "uid=4711 gid=4712 groups=99,2000(extra),4712"


def test_unknown_user_is_refused_in_dockers_words(vm: AgentVm) -> None:
    box = vm.create("true", name=vm.name(), user="ghost")
    with pytest.raises(RequestError) as refused:
        box.start()
    assert refused.value.errno == errno.ENOENT
    assert refused.value.message == "unable to find user ghost: no matching entries in passwd file"


@pytest.mark.parametrize(
    ("command", "number_", "message"),
    [
        ("nope", errno.ENOENT, 'exec: "nope": executable file not found in $PATH'),
        ("/nope", errno.ENOENT, 'exec: "/nope": stat /nope: no such file or directory'),
        ("/etc/passwd", errno.EACCES, 'exec: "/etc/passwd": permission denied'),
        ("/etc", errno.EISDIR, 'exec: "/etc": is a directory'),
    ],
)
@pytest.mark.parametrize("init", [0, 1], ids=["direct", "init"])
def test_what_cannot_be_executed_is_told_in_dockers_words(
    vm: AgentVm, command: str, number_: int, message: str, init: int
) -> None:
    box = vm.create(command, name=vm.name(), init=init)
    with pytest.raises(RequestError) as refused:
        box.start()
    assert (refused.value.errno, refused.value.message) == (number_, message)
    vm.host.until(lambda: vm.host.outputs[box.output].ended)
    assert box.text == ""


def test_no_new_privileges_and_seccomp(vm: AgentVm) -> None:
    mkdir_is_refused = struct.pack(
        "<" + "HBBI" * 4,
        0x20, 0, 0, 0,  # load the number of the call
        0x15, 0, 1, 83,  # mkdir?
        0x06, 0, 0, 0x00050000 | errno.EPERM,
        0x06, 0, 0, 0x7FFF0000,
    )  # fmt: skip
    script = "mkdir /tmp/x 2>&1 || true; grep -E 'NoNewPrivs|Seccomp:' /proc/self/status"
    for privileges in (0, 1):
        text = vm.shell(script, seccomp=mkdir_is_refused, no_new_privileges=privileges, user="app")
        assert "Operation not permitted" in text
        assert f"NoNewPrivs:\t{privileges}" in text
        assert "Seccomp:\t2" in text


def test_limits_signals_and_score_of_a_process(vm: AgentVm) -> None:
    text = vm.shell(
        "ulimit -n; cat /proc/self/oom_score_adj; grep -E 'Sig(Blk|Ign)' /proc/self/status;"
        "pwd; umask",
        cwd="/made/here",
        oom_score_adj=100,
        process=[(Tag.RLIMIT, [(Tag.RESOURCE, 7), (Tag.SOFT, 123), (Tag.HARD, 456)])],
    )
    assert text.splitlines() == [
        "123", "100", "SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "/made/here",
        "0022",
    ]  # fmt: skip


def test_cgroup_limits_are_exact(vm: AgentVm) -> None:
    text = vm.shell(
        "cd /sys/fs/cgroup; cat memory.max pids.max cpu.max cpu.weight",
        memory_bytes=64 << 20, pids_max=50, cpu_quota_us=50000, cpu_weight=77,
    )  # fmt: skip
    assert text.splitlines() == [str(64 << 20), "50", "50000 100000", "77"]


def test_read_only_root(vm: AgentVm) -> None:
    text = vm.shell("touch /x 2>&1 || true; touch /dev/shm/x && echo writable", read_only_root=1)
    assert "Read-only file system" in text
    assert text.endswith("writable\n")


def test_output_keeps_source_time_and_order(vm: AgentVm) -> None:
    before_ns = time.time_ns()
    vm.host.call(Op.SET_CLOCK, [(Tag.TIME_NS, before_ns)])
    box = vm.run("sh", "-c", "echo out; sleep 0.1; echo err >&2; sleep 0.1; echo out; exit 7")
    records = vm.host.outputs[box.output].records()
    assert [(source, data) for _, source, data in records] == [
        (1, b"out\n"), (2, b"err\n"), (1, b"out\n"),
    ]  # fmt: skip
    times = [time_ns for time_ns, _, _ in records]
    assert before_ns < times[0] < times[1] < times[2] < before_ns + 60 * 10**9
    assert box.exit_code == 7
    assert times[2] <= box.exit_number(Tag.TIME_NS)


def test_stdin_reaches_the_process_and_ends(vm: AgentVm) -> None:
    stdin = vm.stream()
    box = vm.create("wc", "-c", name=vm.name(), stdin=stdin)
    box.start()
    data = bytes(range(256)) * 1200
    sent = 0
    while sent < len(data):
        vm.host.until(lambda: vm.host.input_limits.get(stdin, (0, 0, False))[1] > sent)  # noqa: B023
        part = data[sent : min(vm.host.input_limits[stdin][1], sent + 16000)]
        vm.host.write(stdin, part, sent, eof=sent + len(part) == len(data))
        sent += len(part)
    box.wait()
    assert box.text.strip() == str(len(data))
    assert vm.host.input_limits[stdin] == (len(data), vm.host.input_limits[stdin][1], True)


def test_terminal_has_size_console_and_job_control(vm: AgentVm) -> None:
    stdin = vm.stream()
    box = vm.create("sh", name=vm.name(), tty=1, rows=33, columns=99, stdin=stdin, user="app")
    box.start()
    vm.host.write(stdin, b"stty size; tty; stat -c %u $(tty); echo y > /dev/console\n", 0)
    box.wait_text("\r\ny\r\n")
    assert "33 99" in box.text
    assert "/dev/pts/0\r\n1000\r\n" in box.text
    box.call(Op.RESIZE, (Tag.PROCESS_ID, "init"), (Tag.ROWS, 44), (Tag.COLUMNS, 55))
    vm.host.write(stdin, b"stty size; cat\n", 57)
    box.wait_text("44 55")
    box.wait_text("cat\r\n")
    prompts = box.text.count("$ ")
    vm.host.write(stdin, b"\x03", 72)  # the shell survives, cat doesn't
    vm.host.until(lambda: box.text.count("$ ") > prompts)
    vm.host.write(stdin, b"exit 5\n", 73)
    box.wait()
    assert box.exit_code == 5
    assert "can't access tty" not in box.text


def test_init_reaps_and_forwards_signals(vm: AgentVm) -> None:
    script = (
        "trap 'echo got' USR1; cut -d: -f1 /proc/1/cmdline | head -c12; echo; echo $$;"
        "(true & exec true); sleep 0.2; while :; do sleep 0.1; done"
    )
    box = vm.create("sh", "-c", script, name=vm.name(), init=1)
    box.start()
    box.wait_text("\n")
    assert box.text.startswith("slipway-init")
    box.signal(SIGUSR1)
    box.wait_text("got")
    assert "Z" not in box.exec_text("ps", "ps", "-o", "stat")
    box.signal(SIGTERM)
    box.wait()
    assert box.exit_code == 128 + SIGTERM


def test_kill_ends_everything_in_the_container(vm: AgentVm) -> None:
    box = vm.create("sh", "-c", "sleep 1000 & sleep 1000", name=vm.name())
    box.start()
    held = box.exec("holder", "sleep", "1000")
    box.signal(SIGKILL)
    box.wait()
    assert box.exit_code == 128 + SIGKILL
    assert box.exit_number(Tag.SIGNAL) == SIGKILL
    vm.host.until(lambda: vm.host.exit_event(box.name, "holder") is not None)
    vm.host.until(lambda: vm.host.outputs[held].ended)
    with pytest.raises(RequestError) as gone:
        box.signal(SIGKILL)
    assert gone.value.errno == errno.ESRCH


def test_container_runs_out_of_memory_alone(vm: AgentVm) -> None:
    box = vm.run("sh", "-c", "exec tail /dev/zero", memory_bytes=24 << 20)
    assert box.exit_code == 137
    assert box.exit_number(Tag.OOM_KILLED) == 1
    kinds = [dict(fields) for fields in vm.host.events.values() if number(fields[0][1]) == 2]
    assert any(event[Tag.CONTAINER] == box.name.encode() for event in kinds)
    assert box.stats()["STAT_OOM_KILLS"] >= 1
    assert vm.shell("echo alive") == "alive\n"


def test_pids_limit_holds(vm: AgentVm) -> None:
    script = "i=0; while [ $i -lt 12 ]; do sleep 5 & i=$((i+1)); done"
    assert "can't fork" in vm.run("sh", "-c", script, pids_max=6).text


def test_exec_joins_the_container(vm: AgentVm) -> None:
    box = vm.create("sh", "-c", "echo up > /tmp/mark; sleep 1000", name=vm.name(), hostname="box")
    box.start()
    text = box.exec_text(
        "e1", "sh", "-c",
        "hostname; cat /proc/self/cgroup; grep CapEff /proc/self/status; id -u; pwd; ls /tmp;"
        "cat /proc/self/oom_score_adj; ps | wc -l",
        user="app", cwd="/tmp",
    )  # fmt: skip
    assert text.splitlines()[:7] == [
        "box", "0::/", "CapEff:\t0000000000000000", "1000", "/tmp", "mark", "0",
    ]  # fmt: skip
    with pytest.raises(RequestError) as missing:
        box.exec("e2", "nope")
    assert missing.value.message == 'exec: "nope": executable file not found in $PATH'
    tty = box.exec_text("e3", "tty", tty=1)
    assert tty == "/dev/pts/0\r\n"
    box.signal(SIGKILL)
    box.wait()
    with pytest.raises(RequestError) as stopped:
        box.exec("e4", "true")
    assert stopped.value.errno == errno.ESRCH


def test_freeze_stops_and_thaw_goes_on(vm: AgentVm) -> None:
    script = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done"
    box = vm.create("sh", "-c", script, name=vm.name())
    box.start()
    box.wait_text("3\n")
    box.call(Op.FREEZE)
    vm.host.idle(0.3)
    seen = box.text
    vm.host.idle(0.5)
    assert box.text == seen
    with pytest.raises(RequestError) as paused:
        box.exec("e", "true")
    assert paused.value.errno == errno.EBUSY
    box.call(Op.THAW)
    vm.host.until(lambda: len(box.text) > len(seen))
    box.call(Op.FREEZE)
    box.signal(SIGKILL)
    box.wait()
    assert box.exit_code == 137


def test_stats_are_plausible(vm: AgentVm) -> None:
    box = vm.create(
        "sh", "-c", "head -c 3000000 /dev/urandom > /x; echo done; while :; do :; done",
        name=vm.name(), memory_bytes=100 << 20,
    )  # fmt: skip
    box.start()
    box.wait_text("done")
    first = box.stats()
    vm.host.idle(0.3)
    second = box.stats()
    assert second["STAT_CPU_US"] > first["STAT_CPU_US"] > 0
    assert first["STAT_MEMORY_LIMIT_BYTES"] == 100 << 20
    assert 3000000 <= first["STAT_MEMORY_FILE_BYTES"] < 20 << 20
    assert first["STAT_PIDS"] == 1
    assert first["STAT_GUEST_MEMORY_TOTAL_BYTES"] > first["STAT_GUEST_MEMORY_AVAILABLE_BYTES"] > 0
    assert first["STAT_SCRATCH_TOTAL_BYTES"] > first["STAT_SCRATCH_USED_BYTES"] > 0
    box.call(Op.UPDATE, (Tag.MEMORY_MAX_BYTES, 50 << 20))
    assert box.stats()["STAT_MEMORY_LIMIT_BYTES"] == 50 << 20
    box.call(Op.UPDATE, (Tag.CPU_WEIGHT, 200))
    assert box.stats()["STAT_MEMORY_LIMIT_BYTES"] == 50 << 20  # absent: as it was
    box.call(Op.DELETE)
    with pytest.raises(RequestError) as gone:
        box.call(Op.STATS)
    assert gone.value.errno == errno.ENOENT


def test_delete_kills_and_leaves_undelivered_output(vm: AgentVm) -> None:
    vm.host.auto_ack = False
    try:
        box = vm.create("sh", "-c", "seq 1 400000; sleep 1000", name=vm.name(), spill_bytes=8 << 20)
        vm.host.ack(box.output, 0)
        box.start()
        vm.host.until(lambda: box.stats()["STAT_CPU_US"] > 0)
        vm.host.idle(3)
        box.call(Op.DELETE)
    finally:
        vm.host.auto_ack = True
    vm.host.ack(box.output)
    vm.host.until(lambda: vm.host.outputs[box.output].ended)
    numbers = box.text.split()[:-1]  # it may have been killed inside the last
    assert len(numbers) > 1000
    assert numbers == [str(n) for n in range(1, len(numbers) + 1)]


def test_flood_waits_on_disk_then_blocks_and_loses_nothing(vm: AgentVm) -> None:
    count = 700000
    vm.host.auto_ack = False
    try:
        box = vm.create("seq", "1", str(count), name=vm.name(), spill_bytes=2 << 20)
        vm.host.ack(box.output, 0)
        box.start()

        def blocked() -> bool:
            events = [dict(fields) for fields in vm.host.events.values()]
            return any(
                event[Tag.CONTAINER] == box.name.encode() and number(event[Tag.BLOCKED]) == 1
                for event in events
                if Tag.BLOCKED in event
            )

        vm.host.until(blocked)
        vm.host.close()  # and the host may be away meanwhile
    finally:
        vm.host.auto_ack = True
    vm.host.open()
    vm.host.until(lambda: vm.host.outputs[box.output].ended, 60)
    assert box.text.split() == [str(n) for n in range(1, count + 1)]


def test_host_comes_and_goes_during_a_flood(vm: AgentVm) -> None:
    count = 200000
    box = vm.create("seq", "1", str(count), name=vm.name(), spill_bytes=8 << 20)
    box.start()
    output = vm.host.outputs[box.output]
    for _ in range(8):
        seen = len(output.data)
        vm.host.until(lambda: output.ended or len(output.data) > seen + 20000)  # noqa: B023
        vm.host.open()
    vm.host.until(lambda: output.ended and vm.host.exit_event(box.name) is not None)
    assert box.text.split() == [str(n) for n in range(1, count + 1)]


def test_clock_is_stepped_and_the_pool_seeded(vm: AgentVm) -> None:
    now_ns = time.time_ns()
    vm.host.call(Op.SET_CLOCK, [(Tag.TIME_NS, now_ns - 3600 * 10**9)])
    before = vm.host.call(Op.SET_CLOCK, [(Tag.TIME_NS, now_ns)])
    assert abs(number(before[0][1]) - (now_ns - 3600 * 10**9)) < 5 * 10**9
    assert abs(int(vm.shell("date +%s")) - time.time()) < 10
    vm.host.call(Op.SEED_ENTROPY, [(Tag.DATA, bytes(range(64)))])
    with pytest.raises(RequestError):
        vm.host.call(Op.SEED_ENTROPY, [(Tag.DATA, b"")])


def test_missing_disk_is_named(vm: AgentVm) -> None:
    with pytest.raises(RequestError) as refused:
        vm.create("true", name="missing", layers="base,nowhere")
    assert refused.value.errno == errno.ENODEV
    assert "nowhere" in refused.value.message
    box = vm.create("true", name="missing")  # nothing of it has stayed
    box.start()
    box.wait()


def test_hot_added_disk_is_found(vm: AgentVm, tmp_path: Path) -> None:
    path = make_scratch(tmp_path / "hot")
    vm.monitor(f"drive_add 0 if=none,id=hot,format=raw,file={path}")
    vm.monitor("device_add scsi-hd,drive=hot,serial=hot,bus=scsi.0")
    assert vm.shell("echo found", scratch="hot") == "found\n"


def test_guest_without_a_host_uses_no_cpu(vm: AgentVm) -> None:
    def cpu_s() -> float:
        fields = Path(f"/proc/{vm.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    vm.host.close()
    time.sleep(2)
    before = cpu_s()
    time.sleep(10)  # the measurement itself
    used = cpu_s() - before
    vm.host.open()
    assert used < 0.5, f"{used:.2f} s of CPU in 10 s"


def test_hostile_image_harms_itself_only(vm: AgentVm, tmp_path: Path) -> None:
    text = vm.shell(
        "rm -f /etc/passwd; mknod /etc/passwd p; ln -s /proc/1/root/../../.. /tmp/out;"
        "ln -sf /nowhere/file /etc/hosts; echo planted",
        scratch="scratch0",
    )
    assert text == "planted\n"
    box = vm.run(
        "sh", "-c", "echo alive; cat /etc/hosts; ls /tmp/out/",
        scratch="scratch0",
        fields=[(Tag.FILE, [(Tag.PATH, "/tmp/out/etc/f"), (Tag.DATA, b"in\n")])],
    )  # fmt: skip
    assert box.text.startswith("alive\n")
    assert "init" not in box.text.split()


def test_processes_are_listed_until_their_end_is_known(vm: AgentVm) -> None:
    box = vm.run("true")
    vm.host.open()
    processes = [dict(decode(v)) for t, v in vm.host.hello if t == Tag.PROCESS]
    mine = [p for p in processes if p[Tag.CONTAINER] == box.name.encode()]
    assert len(mine) == 1
    assert number(mine[0][Tag.PROCESS_STATE]) == 3
    assert number(mine[0][Tag.EXIT_CODE]) == 0
