"""The compiler of seccomp profiles, by an interpreter of what it makes."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import InvalidArgument, Unsupported
from app.guest.capabilities import ALL_CAPABILITIES, DEFAULT_CAPABILITIES
from app.guest.seccomp import (
    compile_profile,
    default_profile,
    default_program,
    parse_profile,
)
from app.guest.syscall_table import syscall_table
from tests.unit.guest.bpf_machine import (
    ALLOW,
    ENOSYS,
    EPERM,
    ERRNO,
    I386,
    KILL_PROCESS,
    X32_BIT,
    X86_64,
    Machine,
)

HEADERS = Path("/usr/include/x86_64-linux-gnu/asm")
BASES = {"x86_64": (X86_64, 0), "x32": (X86_64, X32_BIT), "i386": (I386, 0)}
# Docker's documented default denies these without further capabilities.
DENIED = (
    "acct add_key bpf clock_settime create_module delete_module finit_module get_kernel_syms "
    "get_mempolicy init_module ioperm iopl io_uring_enter io_uring_register io_uring_setup kcmp "
    "kexec_file_load kexec_load keyctl lookup_dcookie mbind mount move_pages nfsservctl "
    "open_by_handle_at perf_event_open pivot_root query_module quotactl reboot request_key "
    "set_mempolicy setns settimeofday swapon swapoff sysfs _sysctl umount2 unshare uselib "
    "userfaultfd ustat"
).split()


def machine(capabilities: frozenset[str] = DEFAULT_CAPABILITIES) -> Machine:
    return Machine(compile_profile(default_profile(), capabilities))


def native(name: str) -> int:
    return syscall_table("x86_64")[name]


def custom(*rules: dict[str, Any], **profile: Any) -> Machine:
    whole = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(rules), **profile}
    return Machine(compile_profile(whole, frozenset()))


def allowing(operator: str, value: int, value_two: int = 0) -> Machine:
    argument = {"index": 2, "op": operator, "value": value, "valueTwo": value_two}
    return custom({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [argument]})


@pytest.mark.parametrize("name", DENIED)
def test_default_denies_by_eperm(name: str) -> None:
    assert machine().run(X86_64, native(name)) == EPERM


@pytest.mark.parametrize("architecture", ["x86_64", "x32", "i386"])
def test_default_treats_every_number_by_its_name(architecture: str) -> None:
    program = machine()
    audit, base = BASES[architecture]
    table = syscall_table(architecture)
    rules: Any = default_profile()["syscalls"]
    allowed = set(rules[0]["names"]) | {"chroot", "clone", "personality"}
    by_number = {number: name for name, number in table.items()}
    for number in range(1024):
        name = by_number.get(number)
        got = program.run(audit, base + number)
        if name is None or name == "clone3":
            assert got == ENOSYS, (number, name)
        else:
            assert got == (ALLOW if name in allowed else EPERM), (number, name)


def test_default_allows_what_programs_live_on() -> None:
    program = machine()
    for name in ("read", "execve", "futex", "openat2", "ptrace", "epoll_pwait2", "rseq", "statx"):
        assert program.run(X86_64, native(name)) == ALLOW


def test_table_is_what_the_default_was_written_for() -> None:
    """The default allows what it does not withhold: a longer table needs a decision for each."""
    assert {name: len(syscall_table(name)) for name in BASES} == {
        "x86_64": 362,
        "x32": 351,
        "i386": 440,
    }


@pytest.mark.parametrize(
    ("architecture", "header"),
    [("x86_64", "unistd_64.h"), ("x32", "unistd_x32.h"), ("i386", "unistd_32.h")],
)
def test_table_agrees_with_the_kernels_headers(architecture: str, header: str) -> None:
    text = (HEADERS / header).read_text().replace("(__X32_SYSCALL_BIT + ", "").replace(")", "")
    lines = [line.split() for line in text.splitlines() if line.startswith("#define __NR_")]
    headers = {words[1].removeprefix("__NR_"): int(words[2]) for words in lines}
    table = syscall_table(architecture)
    assert {name: headers.get(name) for name in table} == dict(table)


@pytest.mark.parametrize("number", [-1 & 0xFFFF_FFFF, X32_BIT - 1, 0x7FFF_FFFF, 0x8000_0000])
def test_odd_numbers_answer_enosys(number: int) -> None:
    assert machine().run(X86_64, number) == ENOSYS


@pytest.mark.parametrize("audit", [0, 0xC000_00B7, 0x4000_0028, 0xFFFF_FFFF])
def test_other_architectures_are_killed(audit: int) -> None:
    assert machine().run(audit, 0) == KILL_PROCESS


@pytest.mark.parametrize(
    ("flags", "verdict"),
    [
        (0, ALLOW),
        (0x0120_0011, ALLOW),
        (0x003D_0F00, ALLOW),
        (0x0002_0000, EPERM),
        (0x0200_0000, EPERM),
        (0x1000_0011, EPERM),
        (0x4000_0000, EPERM),
        (0x7E02_0000, EPERM),
        (0x1_0000_0011, ALLOW),
    ],
)
def test_clone_makes_no_namespaces(flags: int, verdict: int) -> None:
    assert machine().run(X86_64, native("clone"), flags) == verdict


@pytest.mark.parametrize(
    ("persona", "verdict"),
    [
        (0, ALLOW),
        (8, ALLOW),
        (0x20000, ALLOW),
        (0x20008, ALLOW),
        (0xFFFF_FFFF, ALLOW),
        (0xFFFF_FFFF_FFFF_FFFF, ALLOW),
        (0x40000, EPERM),
        (9, EPERM),
        (0x1_0004_0000, EPERM),
    ],
)
def test_personality_takes_known_values(persona: int, verdict: int) -> None:
    assert machine().run(X86_64, native("personality"), persona) == verdict


@pytest.mark.parametrize(
    ("family", "verdict"),
    [(1, ALLOW), (2, ALLOW), (16, ALLOW), (39, ALLOW), (41, ALLOW), (40, EPERM)],
)
def test_socket_refuses_vsock(family: int, verdict: int) -> None:
    assert machine().run(X86_64, native("socket"), family) == verdict


def test_socket_ignores_the_half_that_linux_ignores() -> None:
    assert machine().run(X86_64, native("socket"), 1 << 32 | 40) == EPERM


def test_sys_admin_opens_its_calls() -> None:
    program = machine(DEFAULT_CAPABILITIES | {"CAP_SYS_ADMIN"})
    for name in ("mount", "unshare", "setns", "clone3", "fsopen"):
        assert program.run(X86_64, native(name)) == ALLOW
    assert program.run(X86_64, native("clone"), 0x7E02_0000) == ALLOW
    assert program.run(X86_64, native("keyctl")) == EPERM


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_MODULE", "init_module"),
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_BPF", "bpf"),
        ("CAP_PERFMON", "perf_event_open"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
        ("CAP_SYS_PTRACE", "kcmp"),
        ("CAP_SYS_NICE", "mbind"),
    ],
)
def test_capability_opens_its_call_alone(capability: str, name: str) -> None:
    assert machine(frozenset()).run(X86_64, native(name)) == EPERM
    program = machine(frozenset({capability}))
    assert program.run(X86_64, native(name)) == ALLOW
    assert program.run(X86_64, native("mount")) == EPERM


def test_chroot_goes_with_its_capability() -> None:
    assert machine(DEFAULT_CAPABILITIES - {"CAP_SYS_CHROOT"}).run(X86_64, native("chroot")) == EPERM


def test_all_capabilities_still_leave_keyrings_out() -> None:
    assert machine(ALL_CAPABILITIES).run(X86_64, native("add_key")) == EPERM


BIG = 0x1_0000_0005
COMPARISONS = {
    "SCMP_CMP_EQ": lambda a, b: a == b,
    "SCMP_CMP_NE": lambda a, b: a != b,
    "SCMP_CMP_LT": lambda a, b: a < b,
    "SCMP_CMP_LE": lambda a, b: a <= b,
    "SCMP_CMP_GT": lambda a, b: a > b,
    "SCMP_CMP_GE": lambda a, b: a >= b,
}


@pytest.mark.parametrize("operator", COMPARISONS)
@pytest.mark.parametrize("value", [0, 5, BIG, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF])
def test_argument_is_compared_in_64_bits(operator: str, value: int) -> None:
    program = allowing(operator, value)
    near = {value, value - 1, value + 1, value ^ 1 << 32, value ^ 1 << 63}
    for argument in near | {0, 5, 6, BIG, 0xFFFF_FFFF, 1 << 63}:
        if 0 <= argument < 1 << 64:
            wanted = ALLOW if COMPARISONS[operator](argument, value) else EPERM
            assert program.run(X86_64, 0, 0, 0, argument) == wanted, hex(argument)


def test_masked_argument_agrees_with_arithmetic() -> None:
    chance = random.Random(20)
    for _ in range(50):
        mask, datum = chance.getrandbits(64), chance.getrandbits(64)
        program = allowing("SCMP_CMP_MASKED_EQ", mask, datum & mask)
        for argument in (datum, ~datum & (1 << 64) - 1, chance.getrandbits(64)):
            wanted = ALLOW if argument & mask == datum & mask else EPERM
            assert program.run(X86_64, 0, 0, 0, argument) == wanted


def test_arguments_of_one_rule_must_all_fit() -> None:
    arguments = [
        {"index": 0, "op": "SCMP_CMP_EQ", "value": 1},
        {"index": 1, "op": "SCMP_CMP_NE", "value": 2},
        {"index": 5, "op": "SCMP_CMP_GT", "value": 3},
    ]
    program = custom({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": arguments})
    assert program.run(X86_64, 0, 1, 1, 0, 0, 0, 4) == ALLOW
    assert program.run(X86_64, 0, 2, 1, 0, 0, 0, 4) == EPERM
    assert program.run(X86_64, 0, 1, 2, 0, 0, 0, 4) == EPERM
    assert program.run(X86_64, 0, 1, 1, 0, 0, 0, 3) == EPERM


def test_arguments_with_one_index_are_alternatives() -> None:
    arguments = [{"index": 0, "op": "SCMP_CMP_EQ", "value": value} for value in (3, 7)]
    program = custom({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": arguments})
    assert [program.run(X86_64, 0, value) for value in (3, 7, 4)] == [ALLOW, ALLOW, EPERM]


def test_profile_that_lets_through_lets_unknown_calls_through() -> None:
    rule = {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}
    program = custom(rule, defaultAction="SCMP_ACT_ALLOW")
    assert program.run(X86_64, 900) == ALLOW
    assert program.run(X86_64, native("mount")) == ERRNO | 13


def test_architecture_that_is_not_named_is_closed() -> None:
    program = custom(defaultAction="SCMP_ACT_ALLOW")
    assert program.run(I386, 3) == KILL_PROCESS
    assert program.run(X86_64, X32_BIT) == ENOSYS
    program = custom(defaultAction="SCMP_ACT_ALLOW", architectures=["SCMP_ARCH_X86"])
    assert program.run(I386, 3) == ALLOW


def test_unknown_names_are_passed_over() -> None:
    program = custom({"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW"})
    assert program.run(X86_64, 0) == ALLOW


@pytest.mark.parametrize(
    ("condition", "verdict"),
    [
        ({"includes": {"minKernel": "6.1"}}, ALLOW),
        ({"includes": {"minKernel": "6.2"}}, EPERM),
        ({"excludes": {"minKernel": "4.8"}}, EPERM),
        ({"includes": {"arches": ["arm64"]}}, EPERM),
        ({"includes": {"arches": ["amd64", "x32"]}}, ALLOW),
        ({"excludes": {"arches": ["amd64"]}}, EPERM),
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, EPERM),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, ALLOW),
    ],
)
def test_rule_applies_where_it_says(condition: dict[str, Any], verdict: int) -> None:
    program = custom({"names": ["read"], "action": "SCMP_ACT_ALLOW", **condition})
    assert program.run(X86_64, 0) == verdict


def test_many_alternatives_keep_jumps_in_reach() -> None:
    """Large leaves push the two halves of the search further apart than a short jump."""
    rules = [
        {
            "names": [name],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 9}],
        }
        for name in ("read", "open", "poll", "mmap", "close", "fork", "kill", "futex", "tee") * 7
    ]
    program = custom(*rules)
    for name in ("read", "close", "futex", "tee"):
        assert program.run(X86_64, native(name), 9) == ALLOW
        assert program.run(X86_64, native(name), 8) == EPERM


def rule(**keys: Any) -> dict[str, Any]:
    return {"names": ["read"], "action": "SCMP_ACT_ALLOW", **keys}


@pytest.mark.parametrize(
    "profile",
    [
        {},
        {"defaultAction": "ALLOW"},
        {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5000},
        {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": True},
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": {}},
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [7]},
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"action": "SCMP_ACT_ALLOW"}]},
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule(names=[1])]},
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule(args=[{"op": "SCMP_CMP_XX"}])]},
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [rule(args=[{"op": "SCMP_CMP_EQ", "index": 6}])],
        },
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [rule(args=[{"op": "SCMP_CMP_EQ", "value": -1}])],
        },
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [rule(args=[{"op": "SCMP_CMP_EQ", "value": 1 << 64}])],
        },
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule(includes={"minKernel": "new"})]},
        {"defaultAction": "SCMP_ACT_ERRNO", "archMap": "all"},
    ],
)
def test_wrong_profile_is_refused(profile: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="seccomp profile") as caught:
        compile_profile(profile, frozenset())
    assert caught.value.field == "seccomp"


def test_supervised_profile_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="SCMP_ACT_NOTIFY"):
        compile_profile({"defaultAction": "SCMP_ACT_NOTIFY"}, frozenset())


def test_too_many_conditions_are_refused() -> None:
    rules = [rule(args=[{"index": 0, "op": "SCMP_CMP_EQ", "value": value}]) for value in range(100)]
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
    with pytest.raises(InvalidArgument, match="conditions for read"):
        compile_profile(profile, frozenset())


def test_program_longer_than_linux_takes_is_refused() -> None:
    rules = [
        rule(
            names=list(syscall_table("x86_64")),
            args=[{"index": 0, "op": "SCMP_CMP_EQ", "value": value}],
        )
        for value in range(30)
    ]
    for number, name in enumerate(syscall_table("x86_64")):
        rules.append(rule(names=[name], args=[{"index": 1, "op": "SCMP_CMP_EQ", "value": number}]))
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
    with pytest.raises(InvalidArgument, match="4096"):
        compile_profile(profile, frozenset())


def test_profile_file_round_trip() -> None:
    text = json.dumps(default_profile()).encode()
    assert compile_profile(parse_profile(text), DEFAULT_CAPABILITIES) == compile_profile(
        default_profile(), DEFAULT_CAPABILITIES
    )


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b" " * (1 << 21)])
def test_profile_file_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidArgument, match="seccomp profile"):
        parse_profile(text)


def test_the_default_program_is_compiled_once_per_set_of_capabilities() -> None:
    fewer = DEFAULT_CAPABILITIES - {"CAP_CHOWN"}
    program = default_program(DEFAULT_CAPABILITIES)
    assert program == compile_profile(default_profile(), DEFAULT_CAPABILITIES)
    assert default_program(frozenset(DEFAULT_CAPABILITIES)) is program
    assert default_program(fewer) == compile_profile(default_profile(), fewer)
