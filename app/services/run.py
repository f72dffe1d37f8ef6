"""One life of a container's VM: what goes on between power-on (or adoption) and its end."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.core.errors import DeadlineExceeded, SlipwayError, Unavailable
from app.domain.vm import (
    SILENT_KILL_AFTER_S,
    UNRESPONSIVE_AFTER_S,
    BootStage,
    VmEndReason,
    VmRecord,
    VmState,
)
from app.guest.agent import (
    AgentClient,
    BackpressureEvent,
    OomEvent,
    ProcessExited,
)
from app.guest.channel import GuestChannel
from app.hypervisor.port import Vm
from app.services.stats import Reading

INIT_PROCESS = "init"
OUTPUT_STREAM_ID = 1
STDIN_STREAM_ID = 2
SILENCE_CHECK_INTERVAL_S = 0.5
CLOCK_INTERVAL_S = 60.0
AGENT_TIMEOUT_S = 10.0
POWER_OFF_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class RunObserver:
    """What the supervisor wants to hear of a run; each callback records it."""

    silence_changed: Callable[[int | None], Awaitable[None]]
    backpressure_changed: Callable[[int | None], Awaitable[None]]
    out_of_memory: Callable[[int], Awaitable[None]]


class Run:
    """A VM with its channel, and what is known of the process in it."""

    def __init__(self, container_id: str, vm: Vm, observer: RunObserver) -> None:
        self.container_id = container_id
        self.vm = vm
        self.channel = GuestChannel(vm.open_channel)
        self.agent = AgentClient(self.channel)
        self.accelerator = ""
        self.hypervisor = ""
        self.boot_stages: tuple[BootStage, ...] = ()
        self.init_exit: asyncio.Future[ProcessExited] = asyncio.get_running_loop().create_future()
        self.ready = False
        self.silent_since_ns: int | None = None
        self.stop_reason: VmEndReason | None = None
        self._observer = observer
        self._exec_exits: dict[str, asyncio.Future[ProcessExited]] = {}
        self._init_exit_number = 0
        self._last_number = 0

    def record(self) -> VmRecord:
        """The VM as shown."""
        heard_s = self.channel.last_heard_monotonic_s
        age_ns = None if heard_s is None else int((time.monotonic() - heard_s) * 1e9)
        return VmRecord(
            id=self.vm.spec.id,
            container_id=self.container_id,
            state=self._state(),
            vcpus=self.vm.spec.vcpus,
            memory_bytes=self.vm.spec.memory_bytes,
            hypervisor=self.hypervisor,
            accelerator=self.accelerator,
            pid=self.vm.pid,
            started_at_ns=self.vm.started_at_ns,
            boot_stages=self.boot_stages,
            last_heard_at_ns=None if age_ns is None else time.time_ns() - age_ns,
        )

    def _state(self) -> VmState:
        if self.stop_reason is not None or self.init_exit.done():
            return VmState.STOPPING
        if self.silent_since_ns is not None:
            return VmState.UNRESPONSIVE
        return VmState.READY if self.ready else VmState.BOOTING

    async def dispatch_events(self) -> None:
        """Take the agent's events; the exit of the first process stays unacknowledged until
        `acknowledge_exit`, so that an engine that dies before recording it hears it again."""
        async for number, event in self.channel.events():
            self._last_number = max(self._last_number, number)
            match event:
                case ProcessExited(process_id=process_id) if process_id == INIT_PROCESS:
                    self._init_exit_number = number
                    if not self.init_exit.done():
                        self.init_exit.set_result(event)
                case ProcessExited(process_id=process_id):
                    future = self._exec_exits.get(process_id)
                    if future is not None and not future.done():
                        future.set_result(event)
                case OomEvent(count=count):
                    await self._observer.out_of_memory(count)
                case BackpressureEvent(blocked=blocked, time_ns=time_ns):
                    await self._observer.backpressure_changed(time_ns if blocked else None)
            if not self._init_exit_number:
                self.channel.acknowledge_event(number)

    def acknowledge_exit(self) -> None:
        """The exit is recorded: the guest may forget it."""
        self.channel.acknowledge_event(self._last_number)

    def expect_exec_exit(self, process_id: str) -> asyncio.Future[ProcessExited]:
        """A future for an exec's end; call before the exec is asked for."""
        future: asyncio.Future[ProcessExited] = asyncio.get_running_loop().create_future()
        self._exec_exits[process_id] = future
        return future

    def forget_exec(self, process_id: str) -> None:
        """No longer wait for an exec."""
        self._exec_exits.pop(process_id, None)

    async def watch_silence(self) -> None:
        """Show a guest that says nothing within 5 s; end it after a minute, later on a busy host."""
        began_s = time.monotonic()
        while True:
            await asyncio.sleep(SILENCE_CHECK_INTERVAL_S)
            heard_s = self.channel.last_heard_monotonic_s or began_s
            silent_s = time.monotonic() - heard_s
            is_silent = silent_s >= UNRESPONSIVE_AFTER_S and (self.ready or not self.boot_stages)
            if is_silent and self.silent_since_ns is None:
                self.silent_since_ns = time.time_ns() - int(silent_s * 1e9)
                await self._observer.silence_changed(self.silent_since_ns)
            elif not is_silent and self.silent_since_ns is not None:
                self.silent_since_ns = None
                await self._observer.silence_changed(None)
            if silent_s >= SILENT_KILL_AFTER_S and not await self.vm.is_paused():
                await self.vm.stop(VmEndReason.SILENT, grace_s=0)
                return

    async def keep_clock(self) -> None:
        """Set the guest's clock each minute; a miss is made good a minute later."""
        while True:
            await asyncio.sleep(CLOCK_INTERVAL_S)
            try:
                await self.agent.set_clock(time.time_ns(), timeout_s=AGENT_TIMEOUT_S)
            except SlipwayError:
                continue  # a silent guest is watch_silence's to judge

    async def read_stats(self) -> Reading:
        """One reading of container and VM."""
        stats = await self.agent.stats(self.container_id, timeout_s=AGENT_TIMEOUT_S)
        vm_stats = await self.vm.stats()
        return Reading(
            time_ns=time.time_ns(),
            cpu_us=stats.cpu_us,
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
            host_resident_bytes=vm_stats.resident_bytes,
        )

    async def power_off(self) -> None:
        """Sync, unmount and switch off in good order; a guest that can't is ended all the same."""
        self.stop_reason = VmEndReason.POWERED_OFF
        try:
            await self.agent.delete(self.container_id, timeout_s=AGENT_TIMEOUT_S)
            await self.agent.power_off(timeout_s=POWER_OFF_TIMEOUT_S)
            async with asyncio.timeout(POWER_OFF_TIMEOUT_S):
                await self.vm.wait()
        except (SlipwayError, TimeoutError):
            pass  # the ladder below needs no help from the guest
        await self.vm.stop(VmEndReason.POWERED_OFF, grace_s=2)
