"""Linux capabilities by name, and Docker's rules for adding and dropping them.

Numbers: Linux include/uapi/linux/capability.h. Rules and default set: Docker's documentation of
`docker run`, "Runtime privilege and Linux capabilities".
"""

from collections.abc import Iterable

from app.core.errors import InvalidArgument

# In the kernel's order: the place in the tuple is the capability's bit.
_NAMES = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID "
        "SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK "
        "IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT "
        "SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
        "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF "
        "CHECKPOINT_RESTORE"
    ).split()
)
_BITS = {name: bit for bit, name in enumerate(_NAMES)}
_ALL = "ALL"

ALL_CAPABILITIES = frozenset(_NAMES)
DEFAULT_CAPABILITIES = frozenset(
    f"CAP_{name}"
    for name in (
        "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP "
        "SETGID SETPCAP SETUID SYS_CHROOT"
    ).split()
)


def capability_names(cap_add: Iterable[str] = (), cap_drop: Iterable[str] = ()) -> frozenset[str]:
    """The capabilities of a container.

    Docker's order: with ALL added, everything but what is dropped by name; else with ALL dropped,
    nothing but what is added; else the default set without what is dropped, and with what is added.
    So a name that is both added and dropped is there, unless ALL is added.

    Args:
        cap_add: Names in any case, with or without `CAP_`, or `ALL`.
        cap_drop: Likewise.

    Raises:
        InvalidArgument: A name is unknown; the field is cap_add or cap_drop.
    """
    added, adds_all = _parse(cap_add, "cap_add")
    dropped, drops_all = _parse(cap_drop, "cap_drop")
    if adds_all:
        return ALL_CAPABILITIES - dropped
    if drops_all:
        return added
    return (DEFAULT_CAPABILITIES - dropped) | added


def capability_mask(names: Iterable[str]) -> int:
    """Bit mask, as in `CapEff` of /proc/PID/status.

    Raises:
        InvalidArgument: A name is unknown.
    """
    parsed, is_all = _parse(names, "capabilities")
    return sum(1 << _BITS[name] for name in (ALL_CAPABILITIES if is_all else parsed))


def _parse(names: Iterable[str], field: str) -> tuple[frozenset[str], bool]:
    parsed: set[str] = set()
    is_all = False
    for text in names:
        upper = text.strip().upper()
        name = upper if upper.startswith("CAP_") else f"CAP_{upper}"
        if name == f"CAP_{_ALL}":
            is_all = True
        elif name in _BITS:
            parsed.add(name)
        else:
            raise InvalidArgument(
                f"there is no capability {text!r}",
                field=field,
                advice="Names are those of capabilities(7), such as NET_ADMIN, or ALL.",
            )
    return frozenset(parsed), is_all
