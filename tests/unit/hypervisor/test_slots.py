"""Disks that a template has before there are images for them."""

import json

from app.hypervisor.qemu.slots import SLOTS, slot_for
from app.services.guest_spec import SCRATCH_SERIAL, layer_serials

NODE_NAME_LENGTH_MAX = 31  # of QEMU


def test_disks_of_most_containers_have_one() -> None:
    scratch = slot_for(SCRATCH_SERIAL, read_only=False)
    layers = [slot_for(serial, read_only=True) for serial in layer_serials(4)]
    assert {scratch, *layers} == set(SLOTS)
    assert slot_for("data-7", read_only=True) is None


def test_what_shall_be_written_goes_to_no_place_that_is_read_only() -> None:
    assert slot_for(SCRATCH_SERIAL, read_only=True) is None
    assert slot_for(layer_serials(1)[0], read_only=False) is None


def test_node_names_are_valid_and_used_once() -> None:
    names = [name for slot in SLOTS for name in (slot.node, slot.empty_node, slot.file_node)]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= NODE_NAME_LENGTH_MAX


def test_image_takes_the_place_of_nothing_and_back() -> None:
    for slot in SLOTS:
        arguments = slot.arguments()
        made = [json.loads(value) for value in arguments[1::2]]
        assert [value.get("node-name") for value in made] == [slot.empty_node, slot.node, None]
        (_, file), (command, reopened) = slot.fill_commands(12)
        assert (file["filename"], file["read-only"]) == ("/dev/fdset/12", slot.read_only)
        assert command == "blockdev-reopen"
        assert reopened == {"options": [made[1] | {"file": slot.file_node}]}
        emptied, forgotten = slot.empty_commands()
        assert emptied == ("blockdev-reopen", {"options": [made[1]]})
        assert forgotten == ("blockdev-del", {"node-name": slot.file_node})
