"""VMs of an earlier engine's pool, over the fake machine: they end, whatever became of them."""

import logging

import pytest

from app.core.ids import new_vm_id
from app.core.units import MIB
from app.domain.container import ContainerState
from app.domain.container_config import ContainerConfig
from app.hypervisor.fake import FakeHypervisor, FakeVm
from app.hypervisor.port import VmSpec
from app.services.leftovers import GONE
from app.services.service_vm import SERVICE_LABEL
from app.services.templates import TEMPLATE_LABEL
from app.services.warm_vm import POOL_LABEL
from tests.integration.engine_lab import (
    WHO,
    EngineLab,
    launch,
    start_path,
    until_state,
    until_waiting,
)


@pytest.fixture
def pooling_lab(lab: EngineLab) -> EngineLab:
    """A lab where two VMs wait."""
    lab.can_clone = True
    lab.settings = lab.settings.model_copy(update={"pool_size": "2"})
    return lab


@pytest.mark.parametrize(
    ("label", "is_warned_of"),
    [(POOL_LABEL, False), (SERVICE_LABEL, False), (TEMPLATE_LABEL, False), ("somebody's", True)],
)
async def test_vms_of_a_killed_engine_are_ended(
    lab: EngineLab, caplog: pytest.LogCaptureFixture, label: str, is_warned_of: bool
) -> None:
    machine = lab.runner()
    earlier = FakeHypervisor(lab.machine)
    for _ in range(3):
        await earlier.create(
            VmSpec(
                id=new_vm_id(),
                vcpus=1,
                memory_bytes=256 * MIB,
                kernel=machine.guest.kernel,
                initrd=machine.guest.initrd,
                cmdline="quiet",
                disks=(),
                labels={label: "1"},
            )
        )
    assert len(lab.machine.vms) == 3
    with caplog.at_level(logging.WARNING):
        async with lab.engine() as services:
            assert not lab.machine.vms
            assert not await services.hosts.vms()
    assert ("belongs to nobody" in caplog.text) is is_warned_of


async def test_waiting_vms_are_nobodys_and_end_with_their_engine(pooling_lab: EngineLab) -> None:
    async with pooling_lab.engine() as services:
        await until_waiting(services, 2)
        assert len(pooling_lab.machine.vms) == 2
        assert not await services.hosts.vms()
        container = await launch(services, ContainerConfig(image="busybox", command=("loop",)))
        assert [vm.container_id for vm in await services.hosts.vms()] == [container.id]
    assert list(pooling_lab.machine.vms) == [container.vm_id]


async def test_vm_that_was_claimed_and_not_relabelled_is_ended(
    pooling_lab: EngineLab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As if the engine had been killed in between."""

    async def forget(_vm: FakeVm, _labels: dict[str, str]) -> None:
        pass

    async with pooling_lab.engine() as services:
        await until_waiting(services, 2)
        with monkeypatch.context() as patched:
            patched.setattr(FakeVm, "relabel", forget)
            container = await launch(services, ContainerConfig(image="busybox", command=("loop",)))
        assert await start_path(services, container) == "pool"
    assert list(pooling_lab.machine.vms) == [container.vm_id]
    with caplog.at_level(logging.WARNING):
        async with pooling_lab.engine() as services:
            ended = await until_state(services, container.id, ContainerState.EXITED)
            assert (ended.error, ended.vm_id) == (GONE, None)
            assert container.vm_id not in pooling_lab.machine.vms
            await until_waiting(services, 2)
            await services.containers.start(container.id, initiator=WHO)
            assert await start_path(services, container) == "pool"
            await services.containers.kill(container.id, initiator=WHO)
    assert "belongs to nobody" not in caplog.text
