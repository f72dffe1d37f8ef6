"""The seccomp profile of a container that asks for none.

It allows what Docker's documented default allows ("Seccomp security profiles for Docker", table of
blocked calls; io_uring is blocked since Docker 25), told the other way round: every call that Linux
6.1 has on x86 is allowed, but for those below. A call that the table in syscalls.json doesn't know
answers ENOSYS, so a newer kernel opens nothing.
"""

from typing import Final

from app.guest.syscall_table import syscall_table

_ENOSYS: Final = 38
_AF_VSOCK: Final = 40
_INT_MASK: Final = 0xFFFF_FFFF
# CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |
# CLONE_NEWNET
_NAMESPACE_FLAGS: Final = 0x7E02_0000
# Linux, Linux with 32-bit processes' uname, the same with the 2.6 version numbers, and the question
# which one is set (personality(2)).
_PERSONALITIES: Final = (0x0, 0x8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF)

# Never, whatever the capabilities.
_WITHHELD: Final = {
    "the kernel's keyrings know no namespaces": "add_key keyctl request_key",
    "the running kernel is replaced": "kexec_file_load kexec_load",
    "the root is moved": "pivot_root",
    "swap is the guest's": "swapoff swapon",
    "the kernel is held up in page faults": "userfaultfd",
    "so much of the kernel, so many faults": "io_uring_enter io_uring_register io_uring_setup",
    "memory is moved between nodes": "migrate_pages move_pages",
    "code in the 16-bit mode": "vm86 vm86old",
    "never implemented in Linux": (
        "afs_syscall break ftime getpmsg gtty idle lock mpx prof profil putpmsg security stty "
        "tuxcall ulimit vserver"
    ),
    "obsolete": (
        "_sysctl bdflush create_module get_kernel_syms nfsservctl nice oldfstat oldlstat "
        "oldolduname oldstat olduname query_module readdir sgetmask sigaction signal sigpending "
        "sigsuspend ssetmask sysfs uselib ustat"
    ),
}

# Only with the capability.
_BY_CAPABILITY: Final = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYS_ADMIN": (
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount "
        "mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname "
        "sethostname setns syslog umount umount2 unshare"
    ),
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYSLOG": "syslog",
}

# Allowed with certain arguments.
_BY_ARGUMENT: Final = frozenset({"clone", "clone3", "personality"})

Rule = dict[str, object]


def default_profile() -> dict[str, object]:
    """The profile in the form of Docker's JSON files; a new object each time."""
    rules: list[Rule] = [_allow(sorted(_always_allowed()))]
    for capability, names in _BY_CAPABILITY.items():
        rules.append(_allow(names.split()) | {"includes": {"caps": [capability]}})
    without_admin = {"excludes": {"caps": ["CAP_SYS_ADMIN"]}}
    no_namespaces = _argument("SCMP_CMP_MASKED_EQ", _NAMESPACE_FLAGS, 0)
    rules += [
        _allow(["clone"]) | without_admin | {"args": [no_namespaces]},
        # Its flags lie in memory, where a filter cannot look: C libraries fall back to clone.
        _refuse(["clone3"], _ENOSYS) | without_admin,
        # A vsock leads to the host. The upper half of the register is ignored by the kernel, so
        # it must be by us.
        _refuse(["socket"], 1) | {"args": [_argument("SCMP_CMP_MASKED_EQ", _INT_MASK, _AF_VSOCK)]},
    ]
    for value in _PERSONALITIES:
        masked = _argument("SCMP_CMP_MASKED_EQ", _INT_MASK, value)
        rules.append(_allow(["personality"]) | {"args": [masked]})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "archMap": [
            {
                "architecture": "SCMP_ARCH_X86_64",
                "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            }
        ],
        "syscalls": rules,
    }


def _always_allowed() -> set[str]:
    known: set[str] = set()
    for architecture in ("x86_64", "x32", "i386"):
        known |= syscall_table(architecture).keys()
    for names in (*_WITHHELD.values(), *_BY_CAPABILITY.values()):
        known -= set(names.split())
    return known - _BY_ARGUMENT


def _allow(names: list[str]) -> Rule:
    return {"names": names, "action": "SCMP_ACT_ALLOW"}


def _refuse(names: list[str], errno: int) -> Rule:
    return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno}


def _argument(operator: str, value: int, value_two: int) -> dict[str, object]:
    return {"index": 0, "value": value, "valueTwo": value_two, "op": operator}
