"""One QEMU VM as an engine holds it: created here or adopted."""

import asyncio
import contextlib
import logging
import signal
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from app.core.errors import Conflict, SlipwayError, Unavailable
from app.domain.vm import VmEndReason
from app.hypervisor.port import DiskSpec, VmExit, VmSpec, VmStats
from app.hypervisor.qemu import process as host_process
from app.hypervisor.qemu.bounded import PipeDrain
from app.hypervisor.qemu.channel import Channel
from app.hypervisor.qemu.disks import Disks
from app.hypervisor.qemu.ending import Evidence, conclude
from app.hypervisor.qemu.migration import Migration
from app.hypervisor.qemu.monitor import Monitor
from app.hypervisor.qemu.process import VmProcess
from app.hypervisor.qemu.rundir import ProcessRecord, RunDirectory
from app.hypervisor.spec import check_disk
from app.hypervisor.steps import finish, run_whole

log = logging.getLogger(__name__)

CONNECT_DEADLINE_S = 5.0
RECONNECT_INTERVAL_S = 1.0
RESUME_INTERVAL_S = 5.0  # between attempts of a VM that waits for disk space
GUEST_OVER_GRACE_S = 5.0  # for QEMU to flush its images after the guest's own end
QUIT_MIN_GRACE_S = 0.1
TERMINATE_GRACE_S = 2.0
STATS_INTERVAL_S = 10.0  # smaps_rollup walks all pages of the process
EVIDENCE_BYTES = 8192

NO_SPACE = "the host's disk is full: the VM is held until an image can grow again"
HELD = "somebody else paused the VM through its monitor"


class QemuVm:
    """A VM whose process we hold; `begin()` starts the one task that watches it."""

    def __init__(
        self,
        directory: RunDirectory,
        spec: VmSpec,
        process: VmProcess,
        record: ProcessRecord,
        *,
        console: PipeDrain,
        stderr: PipeDrain,
        on_discarded: Callable[[str], None] = lambda _vm_id: None,
        is_held: bool = False,
    ) -> None:
        self._directory = directory
        self._spec = spec
        self._process = process
        self._record = record
        self._console = console
        self._stderr = stderr
        self._on_discarded = on_discarded
        self._evidence = Evidence()
        self._monitor = Monitor(spec.id, self._on_event)
        self._disks = Disks(spec.id, self._monitor)
        self._migration = Migration(spec.id, self._monitor)
        self._is_held = is_held  # by us: a clone that is not whole yet, a VM being saved
        self._channel = Channel(spec.id, directory)
        self._changed = asyncio.Event()
        self._known = asyncio.Event()
        self._run_state = ""
        self._is_full = False
        self._exit: asyncio.Future[VmExit] = asyncio.get_running_loop().create_future()
        self._watcher: asyncio.Task[None] | None = None
        self._ladder: asyncio.Task[None] | None = None
        self._resident: tuple[float, tuple[int, int]] | None = None
        self._is_closed = False

    @property
    def spec(self) -> VmSpec:
        """What it was created from."""
        return self._spec

    @property
    def pid(self) -> int | None:
        """QEMU's process id."""
        return self._record.pid

    @property
    def started_at_ns(self) -> int:
        """When the process was spawned."""
        return self._record.started_at_ns

    @property
    def console_path(self) -> Path:
        """The console's bounded file."""
        return self._directory.console_path

    async def open_channel(self) -> tuple[StreamReader, StreamWriter]:
        """Connect to the virtio-serial port's socket."""
        self._check_there()
        return await self._channel.open()

    async def attach_disk(self, disk: DiskSpec) -> None:
        """Hot-add a SCSI disk over an inherited descriptor."""
        check_disk(disk)
        self._check_there()
        await self._disks.attach(disk)

    async def detach_disk(self, serial: str) -> None:
        """Remove the SCSI disk and close its image."""
        self._check_there()
        await self._disks.detach(serial)

    async def relabel(self, labels: dict[str, str]) -> None:
        """Write the record anew."""
        self._check_there()
        relabelled = replace(self._spec, labels=dict(labels))
        await run_whole(self._directory.write_spec, relabelled)
        self._spec = relabelled

    async def stats(self) -> VmStats:
        """CPU time from /proc/PID/stat, PSS from smaps_rollup."""
        self._check_there()
        now = time.monotonic()
        cpu_ns = await asyncio.to_thread(host_process.cpu_ns, self._process.pid)
        if self._resident is None or now - self._resident[0] >= STATS_INTERVAL_S:
            pss = await asyncio.to_thread(host_process.pss_bytes, self._process.pid)
            if pss is not None:
                self._resident = (now, pss)
        self._check_there()
        if cpu_ns is None or self._resident is None:
            raise Unavailable(f"VM {self._spec.id} is gone")
        resident_bytes, template_bytes = self._resident[1]
        return VmStats(cpu_ns, resident_bytes, template_bytes)

    async def is_paused(self) -> bool:
        """By the last run state that QMP told."""
        self._check_there()
        return bool(self.pause_reason)

    @property
    def pause_reason(self) -> str:
        """Why QEMU holds the VM."""
        if self._is_full:
            return NO_SPACE
        is_theirs = self._run_state == "paused" and not (self._is_held or self._is_over)
        return HELD if is_theirs else ""

    async def stop(self, reason: VmEndReason, *, grace_s: float) -> VmExit:
        """End it by quit, SIGTERM, SIGKILL."""
        if not self._exit.done():
            self._check_open()
            if self._evidence.requested is None:
                self._evidence.requested = reason
            self._climb(grace_s)
        return await self.wait()

    async def wait(self) -> VmExit:
        """Wait for the end."""
        return await asyncio.shield(self._exit)

    async def discard(self) -> None:
        """Remove the run directory."""
        if not self.has_ended:
            self._check_open()
            raise Conflict(
                f"VM {self._spec.id} still runs", advice="Stop it before it is discarded."
            )
        await run_whole(self._directory.remove)
        self._on_discarded(self._spec.id)

    # What the hypervisor needs.

    def begin(self) -> None:
        """Watch the process, empty its pipes, keep its monitor."""
        self._process.watch()
        self._console.start()
        self._stderr.start()
        self._watcher = asyncio.create_task(self._watch(), name=f"vm {self._spec.id}")

    async def settle(self, deadline_s: float) -> bool:
        """Wait until the VM's state is known: it runs, or has ended. False after the deadline.

        A guest that had ended while nobody listened is let go and counts as ended only then.
        """
        known = asyncio.create_task(self._known.wait())
        awaited: set[asyncio.Future[Any]] = {known, self._exit}
        try:
            await asyncio.wait(awaited, timeout=deadline_s, return_when="FIRST_COMPLETED")
            if self._is_over and not self._exit.done():
                await asyncio.wait({self._exit}, timeout=GUEST_OVER_GRACE_S + TERMINATE_GRACE_S + 1)
        finally:
            known.cancel()
        return self._known.is_set() or self._exit.done()

    async def save(self, state_fd: int) -> None:
        """Write its state to a descriptor; it never runs on. Raises as Migration."""
        self._check_there()
        self._is_held = True
        await self._migration.save(state_fd)

    async def restore(self, state_fd: int, module_bytes: int) -> None:
        """Become what was saved, completed by module and disks, and run; raises as Migration."""
        await self._migration.load(state_fd)
        await self._migration.complete(self._spec.disks, module_bytes)
        self._is_held, self._run_state = False, "running"
        await run_whole(self._directory.mark_restored)

    async def destroy(self) -> str:
        """Kill it and remove every trace; returns what QEMU had to say."""
        self._evidence.requested = self._evidence.requested or VmEndReason.STOPPED
        self._process.send(signal.SIGKILL)
        if self._watcher is not None:
            await asyncio.wait({self._watcher})
        text = await asyncio.to_thread(self._stderr.file.read_tail, EVIDENCE_BYTES)
        await run_whole(self._directory.remove)
        return text

    async def let_go(self) -> None:
        """Close everything of ours; the VM runs on. A stop under way is waited for."""
        if self._ladder is not None:
            await asyncio.wait({self._ladder})
        self._is_closed = True
        self._channel.close()
        if self._watcher is not None and not self.has_ended:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})
        await self._monitor.close()
        await self._console.close()
        await self._stderr.close()
        self._process.close()
        self._directory.close()
        if not self._exit.done():
            self._exit.set_exception(Unavailable("The hypervisor has been closed"))
            self._exit.exception()

    # Watching.

    async def _watch(self) -> None:
        keeper = asyncio.create_task(self._keep_monitor(), name=f"monitor {self._spec.id}")
        try:
            await self._process.exited.wait()
        finally:
            keeper.cancel()
            await asyncio.wait({keeper})
        try:
            await finish(self._conclude())
        except Exception as exc:
            log.exception("VM %s: its end could not be recorded", self._spec.id)
            if not self._exit.done():  # nobody may wait for ever
                self._exit.set_result(
                    VmExit(VmEndReason.FAILED, f"its end could not be recorded: {exc}")
                )

    async def _keep_monitor(self) -> None:
        while True:
            try:
                await self._monitor.connect(
                    self._directory.address("qmp.sock"), deadline_s=CONNECT_DEADLINE_S
                )
                await self._read_state()
                self._known.set()
                await self._react_until_lost()
            except SlipwayError as exc:
                log.info("VM %s: %s", self._spec.id, exc)
            except Exception:
                log.exception("VM %s: its monitor is not understood", self._spec.id)
            await asyncio.sleep(RECONNECT_INTERVAL_S)

    async def _read_state(self) -> None:
        status = cast(Mapping[str, Any], await self._monitor.execute("query-status"))
        self._run_state = str(status["status"])
        if self._run_state == "guest-panicked":
            self._evidence.is_panicked = True
        elif self._run_state == "internal-error":
            self._evidence.internal_error = True
        elif self._run_state == "shutdown" and not self._evidence.shutdown:
            self._evidence.shutdown = "guest-over"
        self._is_full = self._run_state == "io-error"
        self._changed.set()

    async def _react_until_lost(self) -> None:
        lost = asyncio.create_task(self._monitor.wait_lost())
        lost.add_done_callback(lambda _: self._changed.set())
        try:
            while not lost.done():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RESUME_INTERVAL_S if self._is_full else None):
                        await self._changed.wait()
                if self._changed.is_set():
                    self._changed.clear()
                    if self._is_over:
                        self._climb(GUEST_OVER_GRACE_S)
                elif self._is_full and not lost.done():
                    await self._monitor.execute("cont")
                    await self._read_state()
        finally:
            lost.cancel()

    def _on_event(self, name: str, data: Mapping[str, Any]) -> None:
        self._disks.on_event(name, data)
        self._migration.on_event(name, data)
        match name:
            case "SHUTDOWN":
                self._evidence.shutdown = self._evidence.shutdown or str(data.get("reason", ""))
            case "GUEST_PANICKED":
                self._evidence.is_panicked = True
            case "BLOCK_IO_ERROR" if data.get("action") == "stop":
                self._is_full = True
            case "STOP":
                self._run_state = "paused"
            case "RESUME":
                self._run_state = "running"
                self._is_full = False
            case _:
                return
        self._changed.set()

    @property
    def _is_over(self) -> bool:
        return self._evidence.is_guest_over

    @property
    def was_up(self) -> bool:
        """Whether its monitor has answered once."""
        return self._known.is_set()

    @property
    def has_ended(self) -> bool:
        """Whether it is known how it ended."""
        return self._exit.done() and self._exit.exception() is None

    # Ending.

    def _climb(self, grace_s: float) -> None:
        if self._ladder is None:
            self._ladder = asyncio.create_task(
                self._run_ladder(grace_s), name=f"stop {self._spec.id}"
            )

    async def _run_ladder(self, grace_s: float) -> None:
        """The kill ladder, the one place of it: quit, SIGTERM, SIGKILL, and the reaping."""
        with contextlib.suppress(SlipwayError, TimeoutError):
            async with asyncio.timeout(max(grace_s, QUIT_MIN_GRACE_S)):
                await self._monitor.execute("quit")
        for number, next_grace_s in (
            (signal.SIGTERM, TERMINATE_GRACE_S),
            (signal.SIGKILL, None),
        ):
            if await self._is_gone_within(grace_s):
                break
            log.warning("VM %s did not end in time: %s", self._spec.id, number.name)
            self._process.send(number)
            grace_s = next_grace_s if next_grace_s is not None else 0
        await asyncio.wait({self._exit})

    async def _is_gone_within(self, grace_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._process.exited.wait()
        return self._process.exited.is_set()

    async def _conclude(self) -> None:
        await self._monitor.close()
        await self._stderr.finish()
        await self._console.finish()
        self._evidence.status = self._process.status
        vm_exit = await asyncio.to_thread(self._record_exit)
        self._channel.close()
        self._process.close()
        self._directory.close()
        log.info("VM %s ended: %s", self._spec.id, vm_exit.detail)
        self._exit.set_result(vm_exit)

    def _record_exit(self) -> VmExit:
        self._evidence.stderr = self._stderr.file.read_tail(EVIDENCE_BYTES)
        self._evidence.console_tail = self._console.file.read_tail(EVIDENCE_BYTES)
        vm_exit = conclude(
            self._evidence, pid=self._record.pid, start_ticks=self._record.start_ticks
        )
        with contextlib.suppress(OSError):  # a full disk: the exit is known all the same
            self._directory.write_exit(vm_exit)
        self._directory.remove_runtime()
        return vm_exit

    def _check_open(self) -> None:
        if self._is_closed:
            raise Unavailable("The hypervisor has been closed")

    def _check_there(self) -> None:
        self._check_open()
        if self._exit.done():
            raise Unavailable(f"VM {self._spec.id} is gone: {self._exit.result().detail}")
        if self._process.exited.is_set():
            raise Unavailable(f"VM {self._spec.id} is gone")
