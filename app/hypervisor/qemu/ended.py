"""A VM that had ended before this engine came."""

from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from pathlib import Path

from app.core.errors import Unavailable
from app.domain.vm import VmEndReason
from app.hypervisor.port import DiskSpec, VmExit, VmSpec, VmStats
from app.hypervisor.qemu.adoption import Ended
from app.hypervisor.steps import run_whole


class EndedVm:
    """What is left of it: its spec, its console, and how it ended."""

    def __init__(self, ended: Ended, *, on_discarded: Callable[[str], None]) -> None:
        self._ended = ended
        self._on_discarded = on_discarded

    @property
    def spec(self) -> VmSpec:
        """What it was created from."""
        return self._ended.spec

    @property
    def pid(self) -> int | None:
        """None: there is no process."""
        return None

    @property
    def started_at_ns(self) -> int:
        """When its process began; 0 if that was not recorded."""
        return self._ended.record.started_at_ns if self._ended.record is not None else 0

    @property
    def console_path(self) -> Path:
        """The console's bounded file."""
        return self._ended.directory.console_path

    async def open_channel(self) -> tuple[StreamReader, StreamWriter]:
        """Not possible any more."""
        raise self._gone()

    async def attach_disk(self, disk: DiskSpec) -> None:  # noqa: ARG002 -- the port's
        """Not possible any more."""
        raise self._gone()

    async def detach_disk(self, serial: str) -> None:  # noqa: ARG002 -- the port's
        """Not possible any more."""
        raise self._gone()

    async def relabel(self, labels: dict[str, str]) -> None:  # noqa: ARG002 -- the port's
        """Not possible any more."""
        raise self._gone()

    async def stats(self) -> VmStats:
        """Not possible any more."""
        raise self._gone()

    async def is_paused(self) -> bool:
        """Not possible any more."""
        raise self._gone()

    @property
    def pause_reason(self) -> str:
        """Empty."""
        return ""

    async def stop(self, reason: VmEndReason, *, grace_s: float) -> VmExit:  # noqa: ARG002 -- port
        """How it ended."""
        return self._ended.exit

    async def wait(self) -> VmExit:
        """How it ended, at once."""
        return self._ended.exit

    async def discard(self) -> None:
        """Remove the run directory."""
        await run_whole(self._ended.directory.remove)
        self._on_discarded(self.spec.id)

    def _gone(self) -> Unavailable:
        return Unavailable(f"VM {self.spec.id} is gone: {self._ended.exit.detail}")
