"""The agent in a real VM: the guest, its disks and its channel."""

import errno
import itertools
import signal
import time
from pathlib import Path

import pytest

from app.guest.protocol import Op, Tag
from tests.integration.agent_driver import RequestError, decode, number
from tests.integration.agent_lab import AgentVm, make_scratch, stages

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]


def test_boot_tells_its_stages(vm: AgentVm) -> None:
    told = stages(vm.host.hello)
    assert list(told) == ["kernel", "mounts", "modules", "port"]
    assert list(told.values()) == sorted(told.values())


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


def test_busy_guest_answers_every_host_of_hundreds_during_a_flood(vm: AgentVm) -> None:
    busy = vm.create("sh", "-c", "while :; do :; done", name=vm.name())
    busy.start()
    box = vm.create("yes", "0123456789", name=vm.name())
    box.start()
    output = vm.host.outputs[box.output]
    steps = itertools.cycle((1, 20000, 200000))  # it leaves early, or with QEMU's queue full
    for wanted in itertools.islice(steps, 400):
        seen = len(output.data)
        vm.host.until(lambda: len(output.data) >= seen + wanted)  # noqa: B023
        vm.host.open()
    for one in (busy, box):
        one.signal(signal.SIGKILL)
        one.wait()
        one.call(Op.DELETE)
    lines = box.text.split("\n")
    assert set(lines[:-1]) == {"0123456789"}
    assert "0123456789".startswith(lines[-1])  # killed in the midst of it


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


def test_idle_guest_hardly_wakes(vm: AgentVm) -> None:
    """The quietest of four spells counts: a busy host makes timers late, and then more of them."""
    counts = vm.shell("for n in 1 2 3 4 5; do grep LOC: /proc/interrupts; sleep 4; done")
    seen = [int(line.split()[1]) for line in counts.splitlines()]
    in_a_spell = min(after - before for before, after in itertools.pairwise(seen))
    assert in_a_spell < 20, f"{in_a_spell} interrupts of the timer in 4 s"


def test_processes_are_listed_until_their_end_is_known(vm: AgentVm) -> None:
    box = vm.run("true")
    vm.host.open()
    processes = [dict(decode(v)) for t, v in vm.host.hello if t == Tag.PROCESS]
    mine = [p for p in processes if p[Tag.CONTAINER] == box.name.encode()]
    assert len(mine) == 1
    assert number(mine[0][Tag.PROCESS_STATE]) == 3
    assert number(mine[0][Tag.EXIT_CODE]) == 0
