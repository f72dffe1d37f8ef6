"""The agent in a real VM: layers put together, and the scratch disk over several lives."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from app.guest.protocol import Op, Tag
from tests.integration.agent_lab import Disk, Machines, make_layer

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(240)]

MANY = 127


def layer(directory: Path, name: str, files: dict[str, str | None], opaque: str = "") -> Disk:
    """A layer of some files; None is a whiteout, `opaque` a directory that hides what is below."""
    root = directory / name
    root.mkdir()
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(0, 0))
        else:
            target.write_text(text)
    if opaque:
        os.setxattr(root / opaque, "trusted.overlay.opaque", b"y")
    return Disk(name, make_layer(root, directory / f"{name}.sqfs"))


def test_127_layers_and_a_page_of_options(
    machines: Machines, base_layer: Path, scratch: Disk, tmp_path: Path
) -> None:
    disks = [Disk("base", base_layer)]
    for n in range(1, MANY):
        disks.append(layer(tmp_path, f"l{n}", {f"files/{n}": f"{n}\n", "top": f"{n}\n"}))
    vm = machines.boot([*disks, scratch])
    text = vm.shell("ls /files | wc -l; cat /top", layers=",".join(disk.serial for disk in disks))
    assert text.split() == [str(MANY - 1), str(MANY - 1)]


def test_whiteouts_opaque_directories_and_repeated_layers(
    machines: Machines, base_layer: Path, scratch: Disk, tmp_path: Path
) -> None:
    low = layer(tmp_path, "low", {"d/a": "low", "e/x": "low", "gone": "low", "kept": "low"})
    middle = layer(tmp_path, "middle", {"gone": None, "e/y": "middle"}, opaque="e")
    vm = machines.boot([Disk("base", base_layer), low, middle, scratch])
    script = "cat /kept; echo; ls /d /e; ls /gone 2>/dev/null || echo no"
    text = vm.shell(script, layers="base,low,middle")
    assert text.split() == ["low", "/d:", "a", "/e:", "y", "no"]
    text = vm.shell(script, layers="base,low,middle,low")
    assert text.split() == ["low", "/d:", "a", "/e:", "x", "y", "/gone"]


def test_scratch_disk_is_clean_and_kept_after_power_off(
    machines: Machines, base_layer: Path, scratch: Disk
) -> None:
    disks = [Disk("base", base_layer), scratch]
    first = machines.boot(disks)
    box = first.run("sh", "-c", "echo mine > /kept; rm /bin/uname", spill_bytes=4 << 20)
    assert box.exit_code == 0
    first.host.call(Op.DELETE, [(Tag.CONTAINER, box.name)])
    first.host.call(Op.POWER_OFF, [])
    assert first.process.wait(20) == 0
    said = subprocess.run(
        ["dumpe2fs", "-h", scratch.path], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    assert "needs_recovery" not in said
    second = machines.boot(disks)
    text = second.shell("cat /kept; ls /bin/uname 2>/dev/null || echo gone", spill_bytes=4 << 20)
    assert text == "mine\ngone\n"


def test_exit_does_not_wait_for_the_disk_and_delete_does(
    machines: Machines, base_layer: Path, scratch: Disk
) -> None:
    vm = machines.boot([Disk("base", base_layer), scratch])
    box = vm.run("sh", "-c", "echo to-be-saved-by-delete > /kept", spill_bytes=4 << 20)
    assert box.exit_code == 0
    assert b"to-be-saved-by-delete" not in scratch.path.read_bytes()
    vm.host.call(Op.DELETE, [(Tag.CONTAINER, box.name)])
    assert b"to-be-saved-by-delete" in scratch.path.read_bytes()
    said = subprocess.run(
        ["dumpe2fs", "-h", scratch.path], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    assert "needs_recovery" not in said


def test_container_that_fills_its_disk_keeps_its_log(
    machines: Machines, base_layer: Path, scratch: Disk
) -> None:
    vm = machines.boot([Disk("base", base_layer), scratch])
    vm.host.auto_ack = False
    box = vm.create(
        "sh", "-c", "dd if=/dev/zero of=/big bs=1M 2>&1 | tail -1; seq 1 300000",
        name=vm.name(), spill_bytes=8 << 20,
    )  # fmt: skip
    vm.host.ack(box.output, 0)
    box.start()
    vm.host.until(lambda: vm.host.exit_event(box.name) is not None, 120)
    vm.host.auto_ack = True
    vm.host.ack(box.output)
    vm.host.until(lambda: vm.host.outputs[box.output].ended)
    assert box.text.split("\n", 1)[1] == "".join(f"{n}\n" for n in range(1, 300001))


def test_image_without_layers_and_a_broken_disk(
    machines: Machines, scratch: Disk, tmp_path: Path
) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"no file system" * 10000)
    vm = machines.boot([Disk("bad", garbage), scratch])
    box = vm.create("sh", name="empty", layers="")
    refused = vm.host.post(Op.START, [(Tag.CONTAINER, box.name)])
    with pytest.raises(Exception, match="executable file not found"):
        vm.host.result(refused)
    with pytest.raises(Exception, match="disk bad can't be mounted as squashfs"):
        vm.create("sh", name="broken", layers="bad")
