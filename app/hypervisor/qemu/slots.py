"""Disks that every template has, empty: a clone's guest has found them before it was saved.

To plug a disk makes the guest look for it, which takes longer under emulation than to mount it. An
image is put behind such a disk instead, which the guest does not notice. Until then it reads as
zeros. The guest believes in a size that no image has; beyond an image's end its requests fail.
"""

import json
from dataclasses import dataclass

SLOT_BYTES = 16 * 1024**4  # the largest file system that a scratch disk can have


@dataclass(frozen=True)
class Slot:
    """One of them: for disks with that serial only, since the guest keeps it."""

    serial: str
    read_only: bool

    @property
    def node(self) -> str:
        """Block node that the device reads."""
        return f"slot-{self.serial}"

    @property
    def empty_node(self) -> str:
        """Block node that is behind it while there is no disk."""
        return f"empty-{self.serial}"

    @property
    def file_node(self) -> str:
        """Block node that is behind it while there is one."""
        return f"file-{self.serial}"

    def arguments(self) -> list[str]:
        """QEMU's arguments for an empty one."""
        empty = {
            "driver": "null-co",
            "node-name": self.empty_node,
            "size": SLOT_BYTES,
            "read-zeroes": True,
            "read-only": self.read_only,
        }
        device = {
            "driver": "virtio-blk-pci",
            "id": self.node,
            "drive": self.node,
            "serial": self.serial,
            "num-queues": 1,
            "queue-size": 64,
        }
        return [
            *("-blockdev", json.dumps(empty)),
            *("-blockdev", json.dumps(self._node_over(self.empty_node))),
            *("-device", json.dumps(device)),
        ]

    def fill_commands(self, fdset: int) -> list[tuple[str, dict[str, object]]]:
        """QMP commands that put the image in the descriptor set behind it."""
        file = {
            "driver": "file",
            "node-name": self.file_node,
            "filename": f"/dev/fdset/{fdset}",
            "read-only": self.read_only,
            "discard": "unmap",
        }
        return [("blockdev-add", file), self._reopen(self.file_node)]

    def empty_commands(self) -> list[tuple[str, dict[str, object]]]:
        """QMP commands that take the image away again."""
        return [self._reopen(self.empty_node), self.forget_command()]

    def forget_command(self) -> tuple[str, dict[str, object]]:
        """QMP command that closes an image which is not, or no longer, behind it."""
        return "blockdev-del", {"node-name": self.file_node}

    def _reopen(self, node: str) -> tuple[str, dict[str, object]]:
        return "blockdev-reopen", {"options": [self._node_over(node)]}

    def _node_over(self, node: str) -> dict[str, object]:
        return {
            "driver": "raw",
            "node-name": self.node,
            "read-only": self.read_only,
            "discard": "unmap",
            "file": node,
        }


# By the names that the engine gives a container's disks; those of more layers are plugged.
SLOTS = (Slot("scratch", read_only=False), *(Slot(f"layer-{n}", read_only=True) for n in range(4)))


def slot_for(serial: str, *, read_only: bool) -> Slot | None:
    """Where that disk belongs; None: it has to be plugged."""
    return next((s for s in SLOTS if s.serial == serial and s.read_only == read_only), None)
