"""The agent in a real VM with disks that are there before their images, as a template's are."""

import re
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from app.guest.protocol import Op, Tag
from tests.integration.agent_driver import RequestError
from tests.integration.agent_lab import AgentVm, Disk, Machines

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(240)]

LOOKS = 5
LOOKS_DEADLINE_S = 20


def reads_of_first_disk(vm: AgentVm) -> int:
    """How often the guest has read it."""
    found = re.search(r"^d0: .*?rd_operations=(\d+)", vm.monitor("info blockstats"), re.MULTILINE)
    assert found
    return int(found[1])


def fill_once_looked_at(vm: AgentVm, image: Path, content: Path) -> None:
    """Put the image behind the first disk after the guest has looked in vain for a while."""
    looked = reads_of_first_disk(vm)
    deadline_s = time.monotonic() + LOOKS_DEADLINE_S
    while reads_of_first_disk(vm) < looked + LOOKS:
        assert time.monotonic() < deadline_s, "the guest does not look"
    with image.open("r+b") as target, content.open("rb") as source:
        shutil.copyfileobj(source, target)


def test_container_waits_for_the_image_behind_its_disk(
    machines: Machines, base_layer: Path, scratch: Disk, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(base_layer.stat().st_size)
    base = Disk("base", image, is_slot=True)
    vm = machines.boot([base, replace(scratch, is_slot=True)])
    filling = threading.Thread(target=fill_once_looked_at, args=(vm, image, base_layer))
    filling.start()
    try:
        assert vm.shell("echo here; echo kept > /kept; cat /kept").split() == ["here", "kept"]
    finally:
        filling.join()


def test_disk_that_a_container_has_not_let_go_is_no_other_ones(
    machines: Machines, base_layer: Path, scratch: Disk
) -> None:
    base = Disk("base", base_layer)
    vm = machines.boot([base, replace(scratch, is_slot=True)])
    first = vm.run("sh", "-c", "echo mine > /kept")
    script = "cat /kept 2>/dev/null || echo nothing"
    with pytest.raises(RequestError, match="disk scratch0 can't be read"):
        vm.shell(script)
    vm.host.call(Op.DELETE, [(Tag.CONTAINER, first.name)])
    assert vm.shell(script) == "mine\n"
