"""The choice between KVM and emulation, with probes that do as told."""

import json
from asyncio import StreamReader, StreamWriter
from pathlib import Path
from typing import cast

import pytest

from app.core.errors import PrerequisiteMissing, Unavailable
from app.hypervisor.port import ProbeGuest, VmSpec
from app.hypervisor.qemu import accelerator
from app.hypervisor.qemu.accelerator import AcceleratorChoice
from app.hypervisor.qemu.vm import QemuVm


class Probe:
    """Stands for a VM: its guest answers or not."""

    destroyed = 0

    async def open_channel(self) -> tuple[None, None]:
        return None, None

    async def destroy(self) -> str:
        Probe.destroyed += 1
        return ""


class Host:
    """Boots on the accelerators it is told; counts the attempts."""

    def __init__(self, *works: str) -> None:
        self.works = works
        self.attempts: list[str] = []

    async def launch(self, spec: VmSpec, name: str) -> QemuVm:
        self.attempts.append(name)
        if name not in self.works:
            raise Unavailable(f"{name} is broken")
        assert spec.labels == {"slipway.probe": name}
        return cast(QemuVm, Probe())


async def is_alive(_reader: StreamReader, _writer: StreamWriter) -> bool:
    return True


def choice(tmp_path: Path, host: Host, *, key: str = "guest-1") -> AcceleratorChoice:
    guest = ProbeGuest(Path("/k"), Path("/i"), "quiet", key, is_alive)
    return AcceleratorChoice(
        run_root=tmp_path / "v",
        setting="auto",
        probe_guest=guest,
        find_binary=lambda: "qemu",
        user="nobody",
        launch=host.launch,
    )


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with QEMU 7.2 and a /dev/kvm that opens."""
    monkeypatch.setattr(accelerator, "_read_version", lambda _binary: "7.2.22")
    monkeypatch.setattr(accelerator, "kvm_groups", lambda _identity: [])


async def test_kvm_counts_once_the_guest_answered_on_it(tmp_path: Path) -> None:
    host = Host("kvm", "tcg")
    destroyed_before = Probe.destroyed
    answer = await choice(tmp_path, host).get()
    assert answer.name == "kvm"
    assert answer.boot_ms is not None
    assert host.attempts == ["kvm"]
    assert Probe.destroyed == destroyed_before + 1


async def test_broken_kvm_falls_back_and_says_why(tmp_path: Path) -> None:
    host = Host("tcg")
    answer = await choice(tmp_path, host).get()
    assert answer.name == "tcg"
    assert "kvm is broken" in answer.reason
    assert answer.boot_ms is not None
    assert host.attempts == ["kvm", "tcg"]


async def test_closed_kvm_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_identity: object) -> list[int]:
        raise PrerequisiteMissing("/dev/kvm is closed", advice="Open it.")

    monkeypatch.setattr(accelerator, "kvm_groups", closed)
    host = Host("kvm", "tcg")
    answer = await choice(tmp_path, host).get()
    assert (answer.name, host.attempts) == ("tcg", ["tcg"])
    assert "/dev/kvm is closed. Open it." in answer.reason


async def test_guest_that_boots_nowhere_is_said(tmp_path: Path) -> None:
    answer = await choice(tmp_path, Host()).get()
    assert answer.name == "tcg"
    assert answer.boot_ms is None
    assert "tcg is broken" in answer.reason


async def test_answer_is_remembered_over_engines(tmp_path: Path) -> None:
    first = await choice(tmp_path, Host("kvm")).get()
    host = Host("kvm")
    assert await choice(tmp_path, host).get() == first
    assert host.attempts == []


async def test_change_of_qemu_or_guest_probes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await choice(tmp_path, Host("kvm")).get()
    host = Host("kvm")
    await choice(tmp_path, host, key="guest-2").get()
    monkeypatch.setattr(accelerator, "_read_version", lambda _binary: "8.0.0")
    await choice(tmp_path, host, key="guest-2").get()
    assert host.attempts == ["kvm", "kvm"]


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"key": {}, "answer": {"x": 1}})])
async def test_damaged_memory_probes_again(tmp_path: Path, text: str) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "accelerator.json").write_text(text)
    host = Host("kvm")
    assert (await choice(tmp_path, host).get()).name == "kvm"
    assert host.attempts == ["kvm"]
