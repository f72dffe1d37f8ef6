"""Why a VM ended."""

import signal
from dataclasses import replace

import pytest

from app.domain.vm import VmEndReason
from app.hypervisor.qemu.ending import Evidence, judge, oom_victim
from app.hypervisor.qemu.process import ExitStatus

CONSOLE = (
    "guest: up\n"
    "[    2.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n"
    "[    2.1] CPU: 0 PID: 1 Comm: init\n"
)
KILLED = ExitStatus(signal=signal.SIGKILL)


@pytest.mark.parametrize(
    ("evidence", "reason", "words"),
    [
        (Evidence(shutdown="guest-shutdown"), VmEndReason.POWERED_OFF, "switched itself off"),
        (
            Evidence(is_panicked=True, console_tail=CONSOLE),
            VmEndReason.PANIC,
            "Attempted to kill init! exitcode=0x00000100",
        ),
        (Evidence(is_panicked=True), VmEndReason.PANIC, "panicked"),
        (Evidence(shutdown="guest-reset", console_tail=CONSOLE), VmEndReason.PANIC, "kill init"),
        (Evidence(shutdown="guest-reset"), VmEndReason.PANIC, "reset"),
        (Evidence(shutdown="guest-over", console_tail=CONSOLE), VmEndReason.PANIC, "kill init"),
        (Evidence(shutdown="guest-over"), VmEndReason.POWERED_OFF, "switched itself off"),
        (Evidence(status=KILLED), VmEndReason.KILLED, "signal 9"),
        (Evidence(shutdown="host-signal"), VmEndReason.KILLED, "signal 15"),
        (Evidence(shutdown="host-qmp-quit"), VmEndReason.KILLED, "somebody else"),
        (
            Evidence(status=KILLED, is_oom_killed=True),
            VmEndReason.OUT_OF_HOST_MEMORY,
            "out of memory",
        ),
        (Evidence(status=KILLED, is_oom_killed=None), VmEndReason.KILLED, "not known"),
        (
            Evidence(status=ExitStatus(exit_code=1), stderr="qemu: no such\n thing"),
            VmEndReason.FAILED,
            "exit code 1: qemu: no such thing",
        ),
        (
            Evidence(status=ExitStatus(signal=signal.SIGSEGV)),
            VmEndReason.FAILED,
            "crashed (SIGSEGV)",
        ),
        (Evidence(status=ExitStatus(signal=signal.SIGSYS)), VmEndReason.FAILED, "SIGSYS"),
        (Evidence(internal_error=True, stderr="KVM: entry failed"), VmEndReason.FAILED, "KVM"),
        (Evidence(stderr="qemu: assertion"), VmEndReason.FAILED, "qemu: assertion"),
        (Evidence(), VmEndReason.KILLED, "most likely"),
    ],
)
def test_judge_names_the_reason(evidence: Evidence, reason: VmEndReason, words: str) -> None:
    vm_exit = judge(evidence)
    assert vm_exit.reason is reason
    assert words in vm_exit.detail


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (Evidence(status=KILLED), VmEndReason.SILENT),
        (Evidence(shutdown="host-qmp-quit"), VmEndReason.SILENT),
        (Evidence(shutdown="guest-shutdown"), VmEndReason.POWERED_OFF),
        (Evidence(is_panicked=True), VmEndReason.PANIC),
    ],
)
def test_request_counts_unless_the_guest_was_first(evidence: Evidence, reason: VmEndReason) -> None:
    assert judge(replace(evidence, requested=VmEndReason.SILENT)).reason is reason


def test_long_words_of_qemu_are_cut() -> None:
    vm_exit = judge(Evidence(status=ExitStatus(exit_code=1), stderr="word " * 10_000))
    assert len(vm_exit.detail) < 1000


def test_panic_text_of_a_hostile_guest_is_one_short_plain_line() -> None:
    console = "Kernel panic - not syncing: \x1b[2J\x07" + "z" * 10_000 + "\n"
    detail = judge(Evidence(is_panicked=True, console_tail=console)).detail
    assert detail.isprintable()
    assert len(detail) < 300


def test_old_panic_on_the_console_does_not_explain_a_kill() -> None:
    assert judge(Evidence(status=KILLED, console_tail=CONSOLE)).reason is VmEndReason.KILLED


OOM_RECORD = (
    "3,1234,3386950031,-;Memory cgroup out of memory: Killed process 27478 (qemu-system-x86) "
    "total-vm:558356kB, anon-rss:81352kB"
)


def test_oom_victim_is_read_from_a_kernel_log_record() -> None:
    assert oom_victim(OOM_RECORD, since_us=3386000000) == 27478
    assert (
        oom_victim("3,1,5000,-;Out of memory: Killed process 42 (x) total-vm:1kB", since_us=0) == 42
    )


def test_oom_kill_before_the_process_began_is_of_another() -> None:
    assert oom_victim(OOM_RECORD, since_us=3386950032) is None


@pytest.mark.parametrize(
    "record",
    ["", ";", "3,1;short", "3,1,x,-;Out of memory: Killed process 42 (x)", "6,1,1,-;eth0 up"],
)
def test_other_records_name_no_victim(record: str) -> None:
    assert oom_victim(record, since_us=0) is None
