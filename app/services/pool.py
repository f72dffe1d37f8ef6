"""Warmed VMs that wait for containers: made in the background, handed out at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PoolView:
    """The pool as shown.

    Attributes:
        waiting: VMs that can be claimed now.
        size: How many shall wait, by the setting or by recent demand.
        reason: Why fewer wait than shall; empty while all is well.
    """

    waiting: int
    size: int
    reason: str = ""


class WarmPool:
    """Holds the VMs that wait."""

    def view(self) -> PoolView:
        """What waits now."""
        return PoolView(0, 0)
