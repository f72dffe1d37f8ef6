"""Who QEMU runs as."""

import os
import pwd
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import InvalidArgument, PrerequisiteMissing

KVM_DEVICE = Path("/dev/kvm")

_UID_RANGE = re.compile(r"(\d{1,10})-(\d{1,10})")


@dataclass(frozen=True)
class Identity:
    """User and group of a QEMU process; None where it keeps the engine's."""

    uid: int | None
    gid: int | None

    def can_read(self, status: os.stat_result) -> bool:
        """Whether this identity may open a file of that status anew."""
        if self.uid is None:
            return True
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IRUSR)
        return bool(status.st_mode & stat.S_IROTH)


def resolve_identity(user: str, vm_id: str) -> Identity:
    """Find out who runs a VM: the engine's own user, unless that is root.

    `user` is a user's name, or a range of user ids such as `2000000000-2000065535`, from which each
    VM gets its own (then VMs can't even send each other signals; group ids are the same numbers).

    Raises:
        PrerequisiteMissing: There is no such user.
        InvalidArgument: The user is root, or the range is empty.
    """
    if os.geteuid() != 0:
        return Identity(None, None)
    if match := _UID_RANGE.fullmatch(user):
        first, last = int(match[1]), int(match[2])
        if not 0 < first <= last < 2**32 - 1:
            raise InvalidArgument(
                f"{user} is no range of user ids for QEMU", field="SLIPWAY_QEMU_USER"
            )
        uid = first + int(vm_id, 16) % (last - first + 1)
        return Identity(uid, uid)
    try:
        entry = pwd.getpwnam(user)
    except KeyError as exc:
        raise PrerequisiteMissing(
            f"QEMU is to run as the user {user!r}, whom this machine does not have",
            advice="Set SLIPWAY_QEMU_USER to a user that exists, such as nobody.",
        ) from exc
    if entry.pw_uid == 0:
        raise InvalidArgument(
            f"QEMU never runs as root, and {user!r} is root",
            field="SLIPWAY_QEMU_USER",
            advice="Set SLIPWAY_QEMU_USER to an unprivileged user, such as nobody.",
        )
    return Identity(entry.pw_uid, entry.pw_gid)


def kvm_groups(identity: Identity) -> list[int]:
    """Supplementary groups that a QEMU of that identity needs to open /dev/kvm.

    Raises:
        PrerequisiteMissing: There is no /dev/kvm, or no group could open it; says why.
    """
    try:
        status = KVM_DEVICE.stat()
    except OSError as exc:
        raise PrerequisiteMissing(f"this host has no usable {KVM_DEVICE} ({exc.strerror})") from exc
    if identity.uid is None:
        if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
            raise PrerequisiteMissing(
                f"this user may not open {KVM_DEVICE}",
                advice="Add the user to the group kvm.",
            )
        return []
    others = stat.S_IROTH | stat.S_IWOTH
    group = stat.S_IRGRP | stat.S_IWGRP
    if status.st_mode & others == others:
        return []
    if status.st_mode & group == group and status.st_gid != 0:
        return [status.st_gid]
    raise PrerequisiteMissing(
        f"{KVM_DEVICE} belongs to root alone (mode {stat.S_IMODE(status.st_mode):o}), and QEMU "
        "does not run as root",
        advice=f"Give {KVM_DEVICE} to the group kvm with mode 660.",
    )
