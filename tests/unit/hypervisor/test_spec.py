"""The form of specs and disks."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidArgument
from app.core.units import MIB
from app.hypervisor.port import DiskSpec, VmSpec
from app.hypervisor.spec import MAX_CMDLINE_BYTES, check_disk, check_spec

SPEC = VmSpec(
    id="0123456789ab",
    vcpus=1,
    memory_bytes=128 * MIB,
    kernel=Path("/k"),
    initrd=Path("/i"),
    cmdline="quiet",
    disks=(),
    labels={},
)


def test_plain_spec_is_accepted() -> None:
    check_spec(replace(SPEC, disks=(DiskSpec("a", Path("/a"), read_only=True),)))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": "0123456789AB"}, "id"),
        ({"id": "0123456789ab\n"}, "id"),
        ({"id": "../0123456789"}, "id"),
        ({"vcpus": 0}, "vcpus"),
        ({"vcpus": 256}, "vcpus"),
        ({"memory_bytes": -1}, "memory_bytes"),
        ({"cmdline": "a\nb"}, "cmdline"),
        ({"cmdline": "a\0b"}, "cmdline"),
        ({"cmdline": "x" * (MAX_CMDLINE_BYTES + 1)}, "cmdline"),
        ({"disks": (DiskSpec("a", Path("/a"), True), DiskSpec("a", Path("/b"), True))}, "disks"),
        ({"disks": (DiskSpec("a b", Path("/a"), True),)}, "serial"),
    ],
)
def test_malformed_spec_is_refused_with_its_field(change: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_spec(replace(SPEC, **change))  # type: ignore[arg-type]
    assert caught.value.field == field


@given(st.text(max_size=30))
def test_serial_is_plain_or_refused(serial: str) -> None:
    plain = 1 <= len(serial) <= 20 and serial.isascii() and serial.replace("-", "a").isalnum()
    disk = DiskSpec(serial, Path("/a"), read_only=True)
    if plain:
        check_disk(disk)
    else:
        with pytest.raises(InvalidArgument):
            check_disk(disk)
