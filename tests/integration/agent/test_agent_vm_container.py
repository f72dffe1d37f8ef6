"""The agent in a real VM: what programs in a container find around them."""

import errno
import struct
from pathlib import Path

import pytest

from app.guest.protocol import Tag
from tests.integration.agent_lab import AgentVm

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

MASKED = ("/proc/kcore", "/sys/firmware", "/proc/does-not-exist")
READ_ONLY = ("/proc/sys", "/proc/bus")


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
