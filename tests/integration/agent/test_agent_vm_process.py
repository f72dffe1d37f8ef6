"""The agent in a real VM: starting, feeding, stopping and measuring processes."""

import errno
import time

import pytest

from app.guest.protocol import Op, Tag
from tests.integration.agent_driver import RequestError, number
from tests.integration.agent_lab import AgentVm

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

SIGKILL, SIGTERM, SIGUSR1 = 9, 15, 10


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
    vm.host.write(stdin, b"ping\n", 72)
    # The terminal's echo, which may come amidst what stty writes, and cat's: it runs.
    vm.host.until(lambda: box.text.count("ping\r\n") == 2)
    prompts = box.text.count("$ ")
    vm.host.write(stdin, b"\x03", 77)  # the shell survives, cat doesn't
    vm.host.until(lambda: box.text.count("$ ") > prompts)
    vm.host.write(stdin, b"exit 5\n", 78)
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
