"""Names, bits and Docker's rules."""

import pytest

from app.core.errors import InvalidArgument
from app.guest.capabilities import (
    ALL_CAPABILITIES,
    DEFAULT_CAPABILITIES,
    capability_mask,
    capability_names,
)


def test_default_is_dockers() -> None:
    # CapEff of a process in a container of Docker, as root.
    assert capability_mask(capability_names()) == 0xA804_25FB


def test_mask_of_all_has_every_bit() -> None:
    assert capability_mask(["ALL"]) == capability_mask(ALL_CAPABILITIES) == (1 << 41) - 1


@pytest.mark.parametrize(
    ("name", "bit"),
    [
        ("CAP_CHOWN", 0),
        ("KILL", 5),
        ("net_admin", 12),
        ("cap_sys_admin", 21),
        ("MKNOD", 27),
        ("SETFCAP", 31),
        ("SYSLOG", 34),
        ("CAP_CHECKPOINT_RESTORE", 40),
    ],
)
def test_mask_bit_is_the_kernels(name: str, bit: int) -> None:
    assert capability_mask([name]) == 1 << bit


def test_add_and_drop_change_the_default() -> None:
    names = capability_names(["net_admin"], ["CAP_MKNOD"])
    assert names == (DEFAULT_CAPABILITIES | {"CAP_NET_ADMIN"}) - {"CAP_MKNOD"}


def test_drop_all_leaves_what_is_added() -> None:
    assert capability_names(["CHOWN"], ["all"]) == {"CAP_CHOWN"}
    assert capability_names([], ["ALL"]) == frozenset()


def test_add_all_leaves_out_what_is_dropped() -> None:
    assert capability_names(["ALL"], ["SYS_ADMIN"]) == ALL_CAPABILITIES - {"CAP_SYS_ADMIN"}


def test_add_all_is_stronger_than_drop_all() -> None:
    assert capability_names(["ALL"], ["ALL"]) == ALL_CAPABILITIES


def test_name_added_and_dropped_is_there() -> None:
    assert "CAP_CHOWN" in capability_names(["CHOWN"], ["CHOWN"])


@pytest.mark.parametrize(
    ("add", "drop", "field"),
    [
        (["SUPER"], [], "cap_add"),
        ([], ["CAP_"], "cap_drop"),
        (["CAP_CAP_CHOWN"], [], "cap_add"),
        ([""], [], "cap_add"),
    ],
)
def test_unknown_name_is_refused(add: list[str], drop: list[str], field: str) -> None:
    with pytest.raises(InvalidArgument, match="there is no capability") as caught:
        capability_names(add, drop)
    assert caught.value.field == field
