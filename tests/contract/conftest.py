"""Fixtures: each hypervisor in turn, over a laboratory that must be empty at the end."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from app.hypervisor.port import Hypervisor
from tests.contract.hypervisor_lab import FakeLab, Lab
from tests.contract.qemu_lab import QemuLab


@pytest.fixture(params=["fake", pytest.param("qemu", marks=pytest.mark.qemu)])
async def lab(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Lab]:
    async with AsyncExitStack() as stack:
        made: FakeLab | QemuLab
        if request.param == "fake":
            made = FakeLab(tmp_path)
        else:
            made = QemuLab(tmp_path, request.getfixturevalue("guest_files"))
        yield await stack.enter_async_context(made)
    left = await made.leftovers()
    assert not [name for name in left if name.startswith("vm ")]


@pytest.fixture
async def hypervisor(lab: Lab) -> AsyncIterator[Hypervisor]:
    engine = lab.engine()
    yield engine
    await engine.close()
