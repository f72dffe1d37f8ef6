"""The shelf over a hypervisor that saves and regains as it is told; its guests are played."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.core.errors import CorruptData, DeadlineExceeded, SlipwayError, Unavailable
from app.domain.sizing import BASE_MEMORY_BYTES
from app.domain.vm import VmEndReason
from app.guest.fake import FakeGuest
from app.guest.image import GuestImage
from app.guest.protocol import Op
from app.hypervisor.port import Capabilities, Hypervisor, Template, VmSpec
from app.services.templates import KEPT_TEMPLATES, TemplateShelf, TemplateState, TemplateView


class PlayedVm:
    def __init__(self, spec: VmSpec, connected: asyncio.Event) -> None:
        self.spec, self.guest = spec, FakeGuest()
        self.is_stopped = False
        self._connected = connected

    async def open_channel(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        connection = await self.guest.connect()
        self._connected.set()
        return connection

    async def stop(self, _reason: VmEndReason, *, grace_s: float) -> None:
        assert grace_s
        self.is_stopped = True

    async def discard(self) -> None:
        assert self.is_stopped


@dataclass
class Saved:
    spec: VmSpec
    memory_used_bytes: int = 7
    is_closed: bool = False

    async def close(self) -> None:
        self.is_closed = True


@dataclass
class Saver:
    create_error: SlipwayError | None = None
    earlier: list[Saved] = field(default_factory=list)
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    vms: list[PlayedVm] = field(default_factory=list)
    saved: list[Saved] = field(default_factory=list)
    capabilities: Capabilities = field(default_factory=lambda: Capabilities(True, True, 1))

    async def create(self, spec: VmSpec) -> PlayedVm:
        if self.create_error is not None:
            raise self.create_error
        self.vms.append(PlayedVm(spec, self.connected))
        return self.vms[-1]

    async def save_template(self, vm: PlayedVm) -> Saved:
        self.saved.append(Saved(vm.spec))
        return self.saved[-1]

    async def regain_templates(self) -> list[Saved]:
        return self.earlier


class Shelf:
    """A shelf whose task runs, and what it told."""

    def __init__(self, saver: Saver) -> None:
        self.told: list[TemplateView] = []
        self.changed = asyncio.Event()
        guest = GuestImage(Path("k"), Path("i"), "quiet", "6.1", "key", Path("w"))
        self.shelf = TemplateShelf(
            cast(Hypervisor, saver), guest, boot_timeout_s=5, on_failure=self._tell
        )

    async def _tell(self, view: TemplateView) -> None:
        self.told.append(view)

    async def __aenter__(self) -> TemplateShelf:
        self.task = asyncio.create_task(self.shelf.run())
        return self.shelf

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


async def until_state(shelf: TemplateShelf, vcpus: int, state: TemplateState) -> TemplateView:
    async with asyncio.timeout(5):
        while True:
            for view in shelf.views():
                if (view.vcpus, view.state) == (vcpus, state):
                    return view
            await asyncio.sleep(0)


async def test_what_is_asked_for_is_made_in_the_background() -> None:
    saver = Saver()
    async with Shelf(saver) as shelf:
        assert shelf.take(2) is None
        view = await until_state(shelf, 2, TemplateState.READY)
        assert view.memory_used_bytes == 7
        assert shelf.take(2) is cast(Template, saver.saved[0])
        spec = saver.vms[0].spec
        assert (spec.memory_bytes, spec.disks, spec.for_template) == (BASE_MEMORY_BYTES, (), True)
        assert saver.vms[0].guest.runs == [Op.QUIESCE]
    assert saver.saved[0].is_closed
    await saver.vms[0].guest.close()


async def test_a_failing_build_is_told_and_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.services.templates.FIRST_RETRY_S", 0)
    lab = Shelf(Saver(create_error=Unavailable("no room")))
    async with lab as shelf:
        shelf.take(1)
        assert (await until_state(shelf, 1, TemplateState.FAILED)).reason == "no room"
        assert shelf.take(1) is None
    assert [view.state.value for view in lab.told] == ["building", "building", "failed"]


async def test_a_damaged_template_is_made_again_once() -> None:
    saver = Saver()
    lab = Shelf(saver)
    async with lab as shelf:
        for state in (TemplateState.READY, TemplateState.FAILED):
            shelf.take(1)
            await until_state(shelf, 1, TemplateState.READY)
            template = shelf.take(1)
            assert template is not None
            await shelf.drop(template, CorruptData("torn"))
            await shelf.drop(template, CorruptData("torn"))  # a second start's word
            await until_state(shelf, 1, state)
    assert len(saver.saved) == 2
    assert all(each.is_closed for each in saver.saved)
    assert [view.state.value for view in lab.told] == ["building", "failed"]
    for vm in saver.vms:
        await vm.guest.close()


class BusySaver(Saver):
    """Its guests refuse to become templates."""

    async def create(self, spec: VmSpec) -> PlayedVm:
        vm = await super().create(spec)
        vm.guest.machine.containers["busy"] = cast(Any, SimpleNamespace(processes={}))
        return vm


async def test_a_guest_that_refuses_costs_the_template_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.services.templates.FIRST_RETRY_S", 0)
    saver = BusySaver()
    lab = Shelf(saver)
    async with lab as shelf:
        shelf.take(1)
        failed = await until_state(shelf, 1, TemplateState.FAILED)
        assert "can't become a template" in failed.reason
        assert not lab.task.done()
    assert all(vm.is_stopped for vm in saver.vms)
    for vm in saver.vms:
        await vm.guest.close()


async def test_silent_clone_drops_a_template_of_which_none_ever_answered() -> None:
    saver = Saver()
    lab = Shelf(saver)
    silence = DeadlineExceeded("the guest did not answer")
    async with lab as shelf:
        shelf.take(1)
        await until_state(shelf, 1, TemplateState.READY)
        await shelf.clone_was_silent(1, silence)
        assert saver.saved[0].is_closed
        await until_state(shelf, 1, TemplateState.READY)
        shelf.clone_answered(1)
        await shelf.clone_was_silent(1, silence)
        assert shelf.take(1) is cast(Template, saver.saved[1])
    assert [view.reason for view in lab.told] == ["the guest did not answer"]
    for vm in saver.vms:
        await vm.guest.close()


async def test_the_longest_unasked_goes() -> None:
    saver = Saver()
    async with Shelf(saver) as shelf:
        for vcpus in range(1, KEPT_TEMPLATES + 2):
            shelf.take(vcpus)
            await until_state(shelf, vcpus, TemplateState.READY)
        assert [view.vcpus for view in shelf.views()] == [2, 3, 4]
        assert saver.saved[0].is_closed
    for vm in saver.vms:
        await vm.guest.close()


async def test_an_engine_that_ends_in_a_build_leaves_no_vm() -> None:
    saver = Saver()
    async with Shelf(saver) as shelf:
        shelf.take(1)
        async with asyncio.timeout(5):
            await saver.connected.wait()
    assert saver.vms[0].is_stopped
    assert not saver.saved
    await saver.vms[0].guest.close()
