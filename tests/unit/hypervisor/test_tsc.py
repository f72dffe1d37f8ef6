"""The rate of the host's time-stamp counter."""

import mmap
import platform
from collections.abc import Iterator

import pytest

from app.hypervisor.qemu import tsc


@pytest.fixture(autouse=True)
def _measured_anew() -> Iterator[None]:
    tsc.host_tsc_khz.cache_clear()
    yield
    tsc.host_tsc_khz.cache_clear()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="there is no such counter")
def test_two_measurements_agree_to_a_ten_thousandth() -> None:
    first_khz = tsc.host_tsc_khz()
    tsc.host_tsc_khz.cache_clear()
    second_khz = tsc.host_tsc_khz()
    assert first_khz is not None
    assert second_khz is not None
    assert 500_000 < first_khz < 10_000_000
    assert abs(first_khz - second_khz) < first_khz / 10_000


def test_other_machines_leave_it_to_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert tsc.host_tsc_khz() is None


def test_policy_against_executable_memory_leaves_it_to_the_guest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError

    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(mmap, "mmap", refuse)
    assert tsc.host_tsc_khz() is None
