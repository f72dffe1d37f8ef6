"""Who QEMU runs as."""

import os
import pwd
import stat
from pathlib import Path

import pytest

from app.core.errors import InvalidArgument, PrerequisiteMissing
from app.hypervisor.qemu import identity
from app.hypervisor.qemu.identity import Identity, kvm_groups, resolve_identity


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_unprivileged_engine_keeps_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert resolve_identity("nobody", "0" * 12) == Identity(None, None)


@pytest.mark.usefixtures("as_root")
def test_root_drops_to_the_named_user() -> None:
    entry = pwd.getpwnam("nobody")
    assert resolve_identity("nobody", "0" * 12) == Identity(entry.pw_uid, entry.pw_gid)


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("vm_id", ["0" * 12, "f" * 12, "0123456789ab"])
def test_range_gives_a_user_inside_it(vm_id: str) -> None:
    found = resolve_identity("3000-3009", vm_id)
    assert found.uid is not None
    assert 3000 <= found.uid <= 3009
    assert found.gid == found.uid


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("user", ["root", "0-9", "9-3", "5-4294967295"])
def test_root_and_empty_ranges_are_refused(user: str) -> None:
    with pytest.raises(InvalidArgument):
        resolve_identity(user, "0" * 12)


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("user", ["", "no such user", "1000"])
def test_unknown_user_is_a_missing_prerequisite(user: str) -> None:
    with pytest.raises(PrerequisiteMissing) as caught:
        resolve_identity(user, "0" * 12)
    assert caught.value.advice


@pytest.mark.parametrize(
    ("mode", "uid", "expected"),
    [(0o644, 0, True), (0o600, 0, False), (0o640, 0, False), (0o400, 77, True), (0o044, 77, False)],
)
def test_can_read_follows_mode_and_owner(
    tmp_path: Path, mode: int, uid: int, expected: bool
) -> None:
    status = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, uid, 0, 0, 0, 0, 0))
    assert Identity(77, 77).can_read(status) is expected


def test_missing_kvm_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "KVM_DEVICE", tmp_path / "kvm")
    with pytest.raises(PrerequisiteMissing, match="no usable"):
        kvm_groups(Identity(77, 77))


@pytest.mark.parametrize(("mode", "groups"), [(0o666, []), (0o660, [12345])])
def test_kvm_groups_let_the_user_open_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, groups: list[int]
) -> None:
    device = device_like(tmp_path, monkeypatch, mode=mode, gid=12345)
    assert kvm_groups(Identity(77, 77)) == groups
    assert device.exists()


def test_kvm_of_root_alone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device_like(tmp_path, monkeypatch, mode=0o600, gid=0)
    with pytest.raises(PrerequisiteMissing, match="root alone") as caught:
        kvm_groups(Identity(77, 77))
    assert "group kvm" in caught.value.advice


def device_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, mode: int, gid: int) -> Path:
    """A file in the place of /dev/kvm whose status says what we want, whoever runs the test."""
    device = tmp_path / "kvm"
    device.touch()
    status = os.stat_result((stat.S_IFCHR | mode, 0, 0, 1, 0, gid, 0, 0, 0, 0))

    class Device(type(device)):  # type: ignore[misc]
        def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
            return status

    monkeypatch.setattr(identity, "KVM_DEVICE", Device(device))
    return device
