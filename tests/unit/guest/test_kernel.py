"""Which package is the kernel, what is kept, and what a damaged cache says."""

import os
import platform
from pathlib import Path

import pytest

from app.core.errors import CorruptData, PrerequisiteMissing
from app.guest.kernel import Kernel, fetch_kernel, generic_kernel_package, resolve_packages
from tests.unit.guest.kernel_package import (
    IMAGE_PACKAGE,
    META_PACKAGE,
    RELEASE,
    VMLINUX,
    FakeApt,
    offer_kernel,
)


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeApt:
    apt = offer_kernel(tmp_path)
    monkeypatch.setenv("PATH", f"{apt.programs}:{os.environ['PATH']}")
    return apt


async def fetch(cache: Path, *late: str, refresh: bool = False) -> Kernel:
    return await fetch_kernel(
        META_PACKAGE,
        ["virtio_pci"],
        late,
        cache_dir=cache,
        refresh=refresh,
        progress=lambda _line: None,
    )


@pytest.mark.parametrize(
    ("identity", "version", "package"),
    [
        ("debian", "12", "linux-image-amd64"),
        ("debian", "13", "linux-image-amd64"),
        ("debian", "14", "linux-image-amd64"),
        ("ubuntu", "24.04", "linux-image-generic"),
    ],
)
def test_generic_kernel_is_the_distributions(
    monkeypatch: pytest.MonkeyPatch, identity: str, version: str, package: str
) -> None:
    release = {"ID": identity, "VERSION_ID": version}
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    assert generic_kernel_package() == package


def test_other_distribution_has_no_known_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    release = {"ID": "arch", "PRETTY_NAME": "Arch Linux"}
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    with pytest.raises(PrerequisiteMissing, match="Arch Linux"):
        generic_kernel_package()


async def test_meta_package_is_followed_to_its_version(apt: FakeApt) -> None:
    packages = await resolve_packages(META_PACKAGE)
    assert [(package.name, package.version) for package in packages] == [(IMAGE_PACKAGE, "1")]


async def test_packages_that_name_each_other_end(apt: FakeApt) -> None:
    apt.publish("linux-image-6.1.0-1", "1", "linux-modules-6.1.0-1")
    apt.publish("linux-modules-6.1.0-1", "1", "linux-modules-6.1.0-1, linux-image-6.1.0-1")
    packages = await resolve_packages("linux-image-6.1.0-1")
    assert [package.name for package in packages] == [
        "linux-image-6.1.0-1",
        "linux-modules-6.1.0-1",
    ]


async def test_kernel_is_unpacked_with_its_modules(apt: FakeApt, tmp_path: Path) -> None:
    kernel = await fetch(tmp_path / "cache", "ext4")
    assert kernel.release == RELEASE
    assert kernel.vmlinux.read_bytes() == VMLINUX
    assert [Path(path).stem for path in kernel.early] == ["virtio", "virtio_pci"]
    assert [Path(path).stem for path in kernel.late] == ["jbd2", "ext4"]
    assert kernel.read_module(kernel.late[1]).startswith(b"\x7fELF")


async def test_version_found_first_is_kept(apt: FakeApt, tmp_path: Path) -> None:
    first = await fetch(tmp_path / "cache")
    apt.publish(META_PACKAGE, "2", f"{IMAGE_PACKAGE} (= 2)")
    assert await fetch(tmp_path / "cache") == first


async def test_kernels_that_are_used_no_more_are_removed(apt: FakeApt, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    lists: list[tuple[str, ...]] = [(), ("ext4",), ("jbd2",), ("virtio",), ("overlay",)]
    kernels = [await fetch(cache, *names) for names in lists]
    assert [kernel.vmlinux.exists() for kernel in kernels] == [False, False, True, True, True]


async def test_damaged_cache_says_what_to_remove(apt: FakeApt, tmp_path: Path) -> None:
    kernel = await fetch(tmp_path / "cache")
    (kernel.directory / "kernel.json").write_text("{")
    with pytest.raises(CorruptData, match="is damaged") as caught:
        await fetch(tmp_path / "cache")
    assert str(kernel.directory) in caught.value.advice


async def test_damaged_record_is_looked_up_again(apt: FakeApt, tmp_path: Path) -> None:
    first = await fetch(tmp_path / "cache")
    (tmp_path / f"cache/{META_PACKAGE}.resolved.json").write_text("[1]")
    assert await fetch(tmp_path / "cache") == first
