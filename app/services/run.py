"""One life of a container's VM: what goes on between power-on (or adoption) and its end."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass

from app.core.errors import CorruptData, GuestFailed, SlipwayError, Unavailable
from app.domain.vm import (
    SILENT_KILL_AFTER_S,
    UNRESPONSIVE_AFTER_S,
    BootStage,
    StartPath,
    VmEndReason,
    VmRecord,
    VmState,
)
from app.guest.agent import INIT_PROCESS_ID, Agent
from app.guest.agent_types import BackpressureEvent, OomEvent, ProcessExited
from app.guest.channel import GuestChannel
from app.guest.hello import HelloInfo, Stage, StreamInfo
from app.guest.streams import InputStream
from app.hypervisor.port import Vm, VmStats
from app.services.stats import Reading
from app.services.warm_vm import WarmVm

OUTPUT_STREAM_ID = 1
STDIN_STREAM_ID = 2
FIRST_EXEC_STREAM_ID = 16
SILENCE_CHECK_INTERVAL_S = 0.5
CLOCK_INTERVAL_S = 60.0
DELETE_TIMEOUT_S = 20.0
DELETE_RETRY_S = 0.05
_EBUSY = 16

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunObserver:
    """What the recorder wants to hear of a run; None tells that a condition is over."""

    silence_changed: Callable[["Run", int | None], Awaitable[None]]
    backpressure_changed: Callable[[int | None], Awaitable[None]]
    out_of_memory: Callable[[int], Awaitable[None]]


class Run:
    """A VM with its channel, and what is known of the processes in it.

    Attributes:
        is_started: The container's first process runs, or ran.
        init_exit: How it ended, once it has.
        fault: What the guest did against the contract, for which it was ended.
        stdin: Its input, if it has one.
        is_taken: The guest has answered for the container: this VM has had it, or refused it.
        start_path: How it came to its VM; None for an adopted one.
        host_memory: What the host gave its VM when that was last sampled.
    """

    def __init__(
        self,
        container_id: str,
        vm: Vm,
        observer: RunObserver,
        *,
        booting: bool,
        start_path: StartPath | None = None,
        warm: WarmVm | None = None,
    ) -> None:
        self.container_id = container_id
        self.vm = vm
        self.channel = warm.channel if warm else GuestChannel(vm.open_channel, name=vm.spec.id)
        self.agent = Agent(self.channel)
        self.boot_stages: tuple[BootStage, ...] = ()
        self.init_exit: asyncio.Future[ProcessExited] = asyncio.get_running_loop().create_future()
        self.is_started = False
        self.is_taken = False
        self.fault: SlipwayError | None = None
        self.stdin: InputStream | None = None
        self.start_path = start_path
        self.host_memory: VmStats | None = None
        self._booting = booting
        self._serving = warm.serving if warm else None
        self._powering_off = False
        self._silent_since_ns: int | None = None
        self._observer = observer
        self._helpers: list[asyncio.Task[None]] = []
        self._exec_exits: dict[str, asyncio.Future[ProcessExited]] = {}
        self._next_stream_id = FIRST_EXEC_STREAM_ID
        self._last_event_number = 0
        self._hold_acknowledgements = False

    # --- what is shown ----------------------------------------------------------------------

    def record(self, *, hypervisor: str, accelerator: str) -> VmRecord:
        """The VM as shown."""
        silent_ns = int(self.channel.silent_s * 1e9)
        return VmRecord(
            id=self.vm.spec.id,
            container_id=self.container_id,
            state=self._state(),
            vcpus=self.vm.spec.vcpus,
            memory_bytes=self.vm.spec.memory_bytes,
            hypervisor=hypervisor,
            accelerator=accelerator,
            pid=self.vm.pid,
            started_at_ns=self.vm.started_at_ns,
            boot_stages=self.boot_stages,
            start_path=self.start_path,
            last_heard_at_ns=None if self._booting else time.time_ns() - silent_ns,
            host_resident_bytes=self._host_bytes()[0],
            host_template_bytes=self._host_bytes()[1],
        )

    def _state(self) -> VmState:
        if self._powering_off or self.init_exit.done():
            return VmState.STOPPING
        if self._silent_since_ns is not None:
            return VmState.UNRESPONSIVE
        return VmState.BOOTING if self._booting else VmState.READY

    def note_boot(self, hello: HelloInfo) -> None:
        """The agent of a VM that this engine started has said hello: reckon the boot's stages.

        The guest counts from its kernel's first moment; before were the VMM and its firmware. A
        clone's kernel began with the template.
        """
        total_ms = (time.time_ns() - self.vm.started_at_ns) / 1e6
        if self.start_path is StartPath.CLONE:
            self.boot_stages = (BootStage("clone", total_ms),)
            self.note_hello(hello)
            return
        before_kernel_ms = max(total_ms - hello.uptime_ns / 1e6, 0.0)
        self.boot_stages = (BootStage("vmm and firmware", before_kernel_ms),)
        self.boot_stages += _durations(hello.stages, since_ns=0)
        last_ns = hello.stages[-1].at_ns if hello.stages else 0
        self.note_stage("hello", max(hello.uptime_ns - last_ns, 0) / 1e9)
        self.note_hello(hello)

    def note_claim(self, at_s: float) -> None:
        """The VM has waited, its agent has long answered; it was claimed at that moment."""
        self._booting = False
        self.boot_stages = (BootStage("claim", (time.monotonic() - at_s) * 1000),)

    def note_hello(self, hello: HelloInfo) -> None:
        """The agent has answered; new streams get ids above all that the guest knows."""
        self._booting = False
        known = (info.stream_id + 1 for info in hello.streams)
        self._next_stream_id = max(self._next_stream_id, *known, FIRST_EXEC_STREAM_ID)

    def note_stage(self, name: str, duration_s: float) -> None:
        """Add a step of the start."""
        self.boot_stages += (BootStage(name, duration_s * 1000),)

    def note_guest_stages(self, stages: tuple[Stage, ...], duration_s: float) -> None:
        """Add the guest's steps of a request; what is left of its duration was before them."""
        if not stages:
            self.note_stage("create", duration_s)
            return
        inside_ns = stages[-1].at_ns - stages[0].at_ns
        first_ms = max(duration_s * 1000 - inside_ns / 1e6, 0.0)
        self.boot_stages += (BootStage(stages[0].name, first_ms),)
        self.boot_stages += _durations(stages[1:], since_ns=stages[0].at_ns)

    def new_stream_id(self) -> int:
        """An id that no stream of this VM had before."""
        self._next_stream_id += 1
        return self._next_stream_id - 1

    # --- background work, each a task of the run's group -----------------------------------

    def adopt_helper(self, task: asyncio.Task[None]) -> None:
        """Cancel this task with the run."""
        self._helpers.append(task)

    def cancel_helpers(self) -> None:
        """Cancel what `adopt_helper` was given, and tell who waits for an exec: no event comes."""
        for task in self._helpers:
            task.cancel()
        for ended in self._exec_exits.values():
            if not ended.done():
                ended.set_exception(Unavailable("The container's VM ended before the command did"))
                ended.exception()  # nobody may wait for it

    async def serve_channel(self) -> None:
        """Keep the channel connected, until cancelled."""
        if self._serving is None:
            await self.channel.run()
        else:
            await self._serving

    async def close_channel(self) -> None:
        """Let go of a channel that was taken over and not served to its end. Idempotent."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait({self._serving})

    async def end_if_corrupt(self, work: Coroutine[None, None, None]) -> None:
        """Do background work; a guest that breaks the contract is ended, other faults wait.

        Faults of the connection heal by themselves, and a channel that is closed for good has told
        whoever waits for `connected`.
        """
        try:
            await work
        except CorruptData as error:
            self.fault = error
            await self.vm.stop(VmEndReason.FAILED, grace_s=0)
        except SlipwayError as error:
            logger.warning("VM %s: %s", self.vm.spec.id, error.message)

    async def dispatch_events(self) -> None:
        """Take the agent's events.

        From the first process's exit on nothing is acknowledged until `acknowledge_exit`, so that
        an engine that dies before it has recorded the exit hears of it again.
        """
        while True:
            event = await self.agent.next_event()
            self._last_event_number = event.number
            match event:
                case ProcessExited(process_id=process_id):
                    self._note_exit(event, process_id)
                case OomEvent(count=count):
                    await self._observer.out_of_memory(count)
                case BackpressureEvent(is_blocked=is_blocked, time_ns=time_ns):
                    await self._observer.backpressure_changed(time_ns if is_blocked else None)
            if not self._hold_acknowledgements:
                self.channel.acknowledge_event(event.number)

    def _note_exit(self, event: ProcessExited, process_id: str) -> None:
        if process_id == INIT_PROCESS_ID:
            self._hold_acknowledgements = True
            future: asyncio.Future[ProcessExited] | None = self.init_exit
        else:
            future = self._exec_exits.get(process_id)
        if future is not None and not future.done():
            future.set_result(event)

    def acknowledge_exit(self) -> None:
        """The exit is recorded: the guest may forget it."""
        self.channel.acknowledge_event(self._last_event_number)

    def expect_exec_exit(self, process_id: str) -> asyncio.Future[ProcessExited]:
        """A future for an exec's end; call before the exec is asked for, forget it afterwards."""
        future: asyncio.Future[ProcessExited] = asyncio.get_running_loop().create_future()
        self._exec_exits[process_id] = future
        return future

    def forget_exec(self, process_id: str) -> None:
        """No longer wait for an exec's end. Idempotent."""
        self._exec_exits.pop(process_id, None)

    async def watch_silence(self) -> None:
        """Show a guest that says nothing within 5 s, and end it after a minute.

        A VM that the hypervisor holds is silent by right: it is shown, and never ended. Nor is
        one judged here that is on its way out: `power_off` has deadlines of its own.
        """
        while not self._powering_off:
            await asyncio.sleep(
                max(UNRESPONSIVE_AFTER_S - self.channel.silent_s, SILENCE_CHECK_INTERVAL_S)
            )
            silent_s = self.channel.silent_s
            is_silent = silent_s >= UNRESPONSIVE_AFTER_S and not self._booting
            if is_silent and self._silent_since_ns is None:
                self._silent_since_ns = time.time_ns() - int(silent_s * 1e9)
                await self._observer.silence_changed(self, self._silent_since_ns)
            elif not is_silent and self._silent_since_ns is not None:
                self._silent_since_ns = None
                await self._observer.silence_changed(self, None)
            if is_silent and silent_s >= SILENT_KILL_AFTER_S:
                await self._end_if_not_held()

    async def _end_if_not_held(self) -> None:
        with contextlib.suppress(SlipwayError):
            if await self.vm.is_paused():
                return
        await self.vm.stop(VmEndReason.SILENT, grace_s=0)

    async def keep_clock(self) -> None:
        """Set the guest's clock each minute; a miss is made good a minute later."""
        while True:
            await asyncio.sleep(CLOCK_INTERVAL_S)
            with contextlib.suppress(SlipwayError):  # a silent guest is watch_silence's to judge
                await self.agent.set_clock(time.time_ns())

    async def discard_output(self, info: StreamInfo) -> None:
        """Take and drop the output of an exec whose engine is gone, so that it does not block."""
        stream = self.channel.open_output(info.stream_id, offset=info.base)
        async for chunk in stream:
            stream.acknowledge(chunk.end_offset, eof=chunk.eof)

    # --- operations --------------------------------------------------------------------------

    async def read_stats(self) -> Reading:
        """One reading of container and VM.

        Raises:
            SlipwayError: The guest does not answer, or the VM is gone.
        """
        stats = await self.agent.stats(self.container_id)
        return Reading(
            time_ns=time.time_ns(),
            cpu_us=stats.cpu_us,
            cpu_user_us=stats.cpu_user_us,
            cpu_system_us=stats.cpu_system_us,
            memory_bytes=stats.memory_bytes,
            memory_limit_bytes=stats.memory_limit_bytes,
            memory_anon_bytes=stats.memory_anon_bytes,
            memory_file_bytes=stats.memory_file_bytes,
            pids=stats.pids,
            io_read_bytes=stats.io_read_bytes,
            io_write_bytes=stats.io_write_bytes,
            guest_total_bytes=stats.guest_memory_total_bytes,
            guest_available_bytes=stats.guest_memory_available_bytes,
            guest_kernel_bytes=stats.guest_kernel_bytes,
            host_resident_bytes=self._host_bytes()[0],
            host_template_bytes=self._host_bytes()[1],
        )

    def _host_bytes(self) -> tuple[int | None, int | None]:
        if self.host_memory is None:
            return None, None
        return self.host_memory.resident_bytes, self.host_memory.template_bytes

    async def sample_host_memory(self) -> None:
        """Measure what the host gives the VM; see `residency` for how often.

        Raises:
            Unavailable: The VM is gone.
        """
        self.host_memory = await self.vm.stats()

    async def power_off(self) -> None:
        """Sync and unmount, then end the VM; a guest that can't is ended all the same.

        Once the guest has answered DELETE it has nothing left to save, so it is not asked to
        switch itself off, which takes longer than everything before.
        """
        self._powering_off = True
        with contextlib.suppress(SlipwayError, TimeoutError):
            async with asyncio.timeout(DELETE_TIMEOUT_S):
                while not await self._delete():  # noqa: ASYNC110 - no event tells it
                    await asyncio.sleep(DELETE_RETRY_S)
        await self.vm.stop(VmEndReason.STOPPED, grace_s=2)

    async def _delete(self) -> bool:
        """Have the container deleted; False if the guest still does that for an earlier engine."""
        try:
            await self.agent.delete(self.container_id, timeout_s=DELETE_TIMEOUT_S)
        except GuestFailed as error:
            if error.errno == _EBUSY:
                return False
            raise
        return True


def _durations(stages: tuple[Stage, ...], *, since_ns: int) -> tuple[BootStage, ...]:
    ends_ns = (since_ns, *(stage.at_ns for stage in stages))
    return tuple(
        BootStage(stage.name, max(stage.at_ns - before_ns, 0) / 1e6)
        for stage, before_ns in zip(stages, ends_ns, strict=False)
    )
