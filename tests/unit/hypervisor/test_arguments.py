"""QEMU's command line."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.units import MIB
from app.hypervisor.port import DiskSpec, VmSpec
from app.hypervisor.qemu.arguments import Descriptors, qemu_arguments

DESCRIPTORS = Descriptors(monitor=5, channel=6, console=7, kernel=8, initrd=9, disks=())


def spec(*disks: DiskSpec, memory_bytes: int = 256 * MIB) -> VmSpec:
    return VmSpec(
        id="0123456789ab",
        vcpus=2,
        memory_bytes=memory_bytes,
        kernel=Path("/secret/path/kernel"),
        initrd=Path("/secret/path/initrd"),
        cmdline="quiet slipway.x=1,file=/etc",
        disks=disks,
        labels={},
    )


def value_of(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def values_of(arguments: list[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(arguments) if name == option]


@pytest.mark.parametrize("accelerator", ["kvm", "tcg"])
def test_arguments_name_no_file_of_the_host(accelerator: str) -> None:
    disk = DiskSpec("d", Path("/secret/path/image"), read_only=True)
    arguments = qemu_arguments(
        "qemu",
        spec(disk),
        accelerator=accelerator,
        descriptors=Descriptors(5, 6, 7, 8, 9, disks=(10,)),
    )
    assert not [argument for argument in arguments if "/secret" in argument]


def test_arguments_forbid_what_qemu_never_needs() -> None:
    arguments = qemu_arguments("qemu", spec(), accelerator="tcg", descriptors=DESCRIPTORS)
    assert "spawn=deny" in value_of(arguments, "-sandbox")
    assert "elevateprivileges=deny" in value_of(arguments, "-sandbox")
    assert "-nodefaults" in arguments
    assert "-no-user-config" in arguments
    assert not [argument for argument in arguments if "net" in argument]


def test_command_line_is_one_argument_whatever_it_holds() -> None:
    arguments = qemu_arguments("qemu", spec(), accelerator="tcg", descriptors=DESCRIPTORS)
    assert value_of(arguments, "-append").startswith("quiet slipway.x=1,file=/etc console=ttyS0")


@pytest.mark.parametrize(
    ("memory_bytes", "expected"), [(256 * MIB, "256M"), (256 * MIB + 1, "257M")]
)
def test_memory_is_rounded_up_to_whole_mib(memory_bytes: int, expected: str) -> None:
    arguments = qemu_arguments(
        "qemu", spec(memory_bytes=memory_bytes), accelerator="tcg", descriptors=DESCRIPTORS
    )
    assert value_of(arguments, "-m") == expected


def test_accelerator_decides_the_cpu() -> None:
    kvm = qemu_arguments("qemu", spec(), accelerator="kvm", descriptors=DESCRIPTORS)
    tcg = qemu_arguments("qemu", spec(), accelerator="tcg", descriptors=DESCRIPTORS)
    assert value_of(kvm, "-accel") == "kvm"
    assert value_of(kvm, "-cpu") == "host"
    assert value_of(tcg, "-accel").startswith("tcg")
    assert value_of(tcg, "-cpu") != "host"


def test_clone_without_a_memory_module_has_the_smallest_translation_cache() -> None:
    def cache_mib(base_bytes: int | None, memory_bytes: int) -> int:
        arguments = qemu_arguments(
            "qemu",
            spec(memory_bytes=memory_bytes),
            accelerator="tcg",
            descriptors=DESCRIPTORS,
            base_bytes=base_bytes,
        )
        return int(value_of(arguments, "-accel").rpartition("tb-size=")[2])

    base = cache_mib(256 * MIB, 256 * MIB)
    plugged = cache_mib(256 * MIB, 1024 * MIB)
    assert base < plugged < cache_mib(None, 256 * MIB)


def test_each_disk_has_its_own_descriptor_node_and_serial() -> None:
    disks = (
        DiskSpec("layer-1", Path("/a"), read_only=True),
        DiskSpec("scratch", Path("/b"), read_only=False),
    )
    arguments = qemu_arguments(
        "qemu",
        spec(*disks),
        accelerator="tcg",
        descriptors=Descriptors(5, 6, 7, 8, 9, disks=(20, 21)),
    )
    nodes = [json.loads(value) for value in values_of(arguments, "-blockdev")]
    devices = [
        json.loads(value) for value in values_of(arguments, "-device") if value.startswith("{")
    ]
    assert [node["read-only"] for node in nodes] == [True, False]
    assert [node["file"]["filename"] for node in nodes] == ["/dev/fdset/10", "/dev/fdset/11"]
    assert [device["serial"] for device in devices] == ["layer-1", "scratch"]
    assert [device["drive"] for device in devices] == [node["node-name"] for node in nodes]
    assert values_of(arguments, "-add-fd")[1:] == [
        "fd=20,set=10,opaque=layer-1",
        "fd=21,set=11,opaque=scratch",
    ]


def test_disk_node_names_fit_for_the_longest_serial() -> None:
    arguments = qemu_arguments(
        "qemu",
        spec(DiskSpec("s" * 20, Path("/a"), read_only=True)),
        accelerator="tcg",
        descriptors=Descriptors(5, 6, 7, 8, 9, disks=(20,)),
    )
    assert len(json.loads(value_of(arguments, "-blockdev"))["node-name"]) <= 31


def test_clone_has_the_devices_of_its_template_and_no_image_yet() -> None:
    disk = DiskSpec("scratch", Path("/b"), read_only=False)
    descriptors = Descriptors(5, 6, 7, 8, 9, disks=(), memory=10)
    template = qemu_arguments("qemu", spec(), accelerator="tcg", descriptors=descriptors)
    clone = qemu_arguments(
        "qemu",
        spec(disk),
        accelerator="tcg",
        descriptors=replace(descriptors, disks=(20,)),
        base_bytes=MIB,
    )
    for option in ("-device", "-blockdev"):
        assert values_of(clone, option) == values_of(template, option)
    assert not any("fdset/10" in value for value in clone)
    assert "fd=20,set=10,opaque=scratch" in values_of(clone, "-add-fd")


def test_guest_is_told_the_rate_of_the_counter() -> None:
    told = qemu_arguments(
        "qemu", spec(), accelerator="tcg", descriptors=DESCRIPTORS, tsc_khz=2_596_136
    )
    assert "tsc_early_khz=2596136" in value_of(told, "-append").split()
    alone = qemu_arguments("qemu", spec(), accelerator="tcg", descriptors=DESCRIPTORS)
    assert "tsc_early_khz" not in value_of(alone, "-append")
