"""The agent in a real VM: devices of a container, privileged ones, and its list of processes."""

import errno

import pytest

from app.guest.protocol import Op, Tag
from tests.integration.agent_driver import RequestError, Value, decode
from tests.integration.agent_lab import AgentVm

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

READ = 4
DISK = "/dev/sda"


def device(source: str, target: str, mode: int) -> tuple[Tag, Value]:
    return (Tag.DEVICE, [(Tag.NAME, source), (Tag.PATH, target), (Tag.MODE, mode)])


def test_a_device_is_there_with_the_access_it_was_given(vm: AgentVm) -> None:
    text = vm.shell(
        "head -c 1 /data/disk | wc -c; test -b /data/disk && echo block;"
        "(echo x > /data/disk) 2>/dev/null || echo no write;"
        "mknod /x b 254 99; head -c 1 /x 2>/dev/null || echo no other",
        fields=[device(DISK, "/data/disk", READ)],
    )
    assert text.split("\n") == ["1", "block", "no write", "no other", ""]


def test_a_device_that_there_is_not_is_refused(vm: AgentVm) -> None:
    with pytest.raises(RequestError, match="/dev/none") as refused:
        vm.create("true", name=vm.name(), fields=[device("/dev/none", "/dev/none", READ)])
    assert refused.value.errno == errno.ENODEV


def test_a_privileged_container_has_every_device(vm: AgentVm) -> None:
    text = vm.shell(
        f"head -c 1 {DISK} | wc -c; ls /dev | wc -l;"
        "mount | grep -c '^sysfs on /sys type sysfs (rw';"
        "mount | grep -c 'on /sys/fs/cgroup.*(rw'",
        fields=[(Tag.PRIVILEGED, 1)],
    )
    read, count, sysfs, cgroup = text.split()
    assert (read, sysfs, cgroup) == ("1", "1", "1")
    assert int(count) > 30


def test_processes_are_listed(vm: AgentVm) -> None:
    box = vm.create("sh", "-c", "sleep 100 & exec sleep 200", name=vm.name())
    box.start()
    wanted = [["sleep", "100"], ["sleep", "200"]]
    vm.host.until(lambda: sorted(_commands(box.call(Op.PROCESSES))) == wanted)
    process = next(decode(value) for tag, value in box.call(Op.PROCESSES) if tag == Tag.PROCESS)
    fields = dict(process)
    assert fields[Tag.USER] == b"0"
    assert fields[Tag.DATA].startswith(f"{int.from_bytes(fields[Tag.PID], 'little')} (".encode())
    box.signal(9)
    box.wait()


def _commands(answer: list[tuple[int, bytes]]) -> list[list[str]]:
    groups = [decode(value) for tag, value in answer if tag == Tag.PROCESS]
    return [[value.decode() for tag, value in group if tag == Tag.ARG] for group in groups]
