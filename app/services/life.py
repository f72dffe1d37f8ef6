"""One container's life under the supervisor: runs, their ends, and restarts between them."""

import asyncio
import time
from dataclasses import dataclass

from app.core.errors import GuestFailed, SlipwayError
from app.domain.container import Container, ContainerState
from app.domain.container_options import NO_LOG_DRIVER
from app.domain.restart import next_delay_s
from app.domain.vm import StartPath, VmEndReason
from app.guest.agent import INIT_PROCESS_ID
from app.guest.hello import HelloInfo
from app.guest.protocol import Direction, ProcessState
from app.hypervisor.port import Vm, VmExit
from app.services.attachments import OutputTap
from app.services.launch import Blueprint
from app.services.parts import EngineParts
from app.services.pump import LOG_WINDOW_BYTES, LogPump
from app.services.recorder import LifeRecorder, describe
from app.services.run import OUTPUT_STREAM_ID, STDIN_STREAM_ID, Run

START_TIMEOUT_S = 30.0
DISPOSE_TIMEOUT_S = 30.0
EXIT_CODE_KILLED = 137
# What Docker answers when a command can't be run (moby, daemon/start.go and errdefs).
EXIT_CODE_NOT_FOUND = 127
EXIT_CODE_NOT_EXECUTABLE = 126
EXIT_CODE_START_FAILED = 128
_ENOENT, _ENOEXEC, _EACCES, _ENOTDIR, _EISDIR = 2, 8, 13, 20, 21


@dataclass(frozen=True)
class Ending:
    """How a run ended, for the record."""

    exit_code: int
    oom_killed: bool = False
    error: str = ""


class Life:
    """Drives one container until no run is left and none will follow.

    Owned by the supervisor's task group as one task. When the engine ends, the task is cancelled
    and the VM goes on; a start that was under way is undone.

    Attributes:
        settled: Set once the first start of this life has succeeded or failed.
        start_error: Why the first start failed.
        finished: Set by the supervisor when the life is over and recorded.
        exit_code: Of the last run.
        run: The present run.
        vm: The VM of the present or last run.
        is_restarted: It is stopped to be started again, so `--rm` does not mean this end.
    """

    def __init__(self, container: Container, parts: EngineParts) -> None:
        self.container_id = container.id
        self.settled = asyncio.Event()
        self.start_error: SlipwayError | None = None
        self.finished = asyncio.Event()
        self.exit_code = container.exit_code
        self.run: Run | None = None
        self.vm: Vm | None = None
        self._parts = parts
        self._recorder = LifeRecorder(container.id, parts)
        self.is_restarted = False
        self._interrupt = asyncio.Event()

    def interrupt(self) -> None:
        """Give up waiting for a restart."""
        self._interrupt.set()

    async def drive(self, container: Container, *, adopted: Vm | None) -> None:
        """Go through runs to the end; `container` is STARTING, RESTARTING or has a VM."""
        delay_s = next_delay_s(0, ran_for_s=0)
        try:
            while True:
                if container.state is ContainerState.RESTARTING and adopted is None:
                    started = await self._wait_to_restart(delay_s)
                    if started is None:
                        return
                    container = started
                if adopted is None:
                    await self._parts.service_vms.give_way(container.id)
                began_s = time.monotonic()
                container = await self._one_run(container, adopted)
                adopted = None
                self.exit_code = container.exit_code
                self.settled.set()
                if container.state is not ContainerState.RESTARTING:
                    return
                delay_s = next_delay_s(delay_s, ran_for_s=time.monotonic() - began_s)
        finally:
            self.settled.set()

    async def _wait_to_restart(self, delay_s: float) -> Container | None:
        try:
            async with asyncio.timeout(delay_s):
                await self._interrupt.wait()
        except TimeoutError:
            return await self._recorder.claim_restart()
        await self._recorder.restart_given_up()
        return None

    async def _one_run(self, container: Container, adopted: Vm | None) -> Container:
        blueprint: Blueprint | None = None
        start_path: StartPath | None = None
        vm = adopted
        try:
            if vm is None:
                blueprint = await self._parts.launcher.draw_up(container)
                vm, start_path = await self._parts.launcher.power_on(blueprint)
        except SlipwayError as error:
            return await self._start_failed(error)
        run = Run(
            container.id,
            vm,
            self._recorder.observer(),
            booting=adopted is None,
            start_path=start_path,
        )
        run.is_started = adopted is not None and container.state is not ContainerState.STARTING
        self.run, self.vm = run, vm
        try:
            await self._recorder.vm_known(run)
            outcome = await self._supervise(run, container, blueprint)
        except asyncio.CancelledError:
            if not run.is_started and adopted is None:
                await self._undo_start(run)
            raise
        finally:
            self.run = None
        await self._dispose(run)
        if isinstance(outcome, SlipwayError):
            if not run.is_started:
                return await self._start_failed(outcome)
            outcome = Ending(EXIT_CODE_KILLED, error=describe(outcome))
        return await self._recorder.run_ended(
            exit_code=outcome.exit_code, oom_killed=outcome.oom_killed, error=outcome.error
        )

    async def _supervise(
        self, run: Run, container: Container, blueprint: Blueprint | None
    ) -> Ending | SlipwayError:
        """Run until the container has ended or its VM has; a SlipwayError means no start."""
        pump = LogPump(
            self._parts.log_store,
            self._parts.log_hub,
            container_id=container.id,
            source=f"{run.vm.spec.id}/{OUTPUT_STREAM_ID}",
            on_fault=self._recorder.log_fault,
            tap=OutputTap(
                self._parts.attach_hub,
                container.id,
                last_seq=self._parts.log_store.last_seq(container.id),
                writer_ended=run.init_exit,
            ),
            is_kept=container.config.log_driver != NO_LOG_DRIVER,
        )
        async with asyncio.TaskGroup() as group:
            script = group.create_task(self._script(run, container, blueprint, pump, group))
            vm_end = group.create_task(run.vm.wait())
            background = [
                group.create_task(run.end_if_corrupt(work))
                for work in (
                    run.channel.run(),
                    run.dispatch_events(),
                    run.watch_silence(),
                    run.keep_clock(),
                )
            ]
            await asyncio.wait({script, vm_end}, return_when=asyncio.FIRST_COMPLETED)
            outcome = script.result() if script.done() else None
            for task in (script, vm_end, *background):
                task.cancel()
            run.cancel_helpers()
        if outcome is not None:
            return outcome
        await pump.give_up()
        return self._vm_vanished(run, await run.vm.wait())

    def _vm_vanished(self, run: Run, vm_exit: VmExit) -> Ending | SlipwayError:
        detail = run.fault.message if run.fault is not None else vm_exit.detail
        if run.init_exit.done():
            seen = run.init_exit.result()
            return Ending(seen.exit_code, seen.oom_killed, detail)
        if not run.is_started:
            return SlipwayError(
                f"The VM ended before the container ran: {detail}",
                advice="See the boot console.",
            )
        out_of_memory = vm_exit.reason is VmEndReason.OUT_OF_HOST_MEMORY
        return Ending(EXIT_CODE_KILLED, out_of_memory, detail)

    async def _script(
        self,
        run: Run,
        container: Container,
        blueprint: Blueprint | None,
        pump: LogPump,
        group: asyncio.TaskGroup,
    ) -> Ending | SlipwayError:
        try:
            if blueprint is not None:
                await self._start_new(run, blueprint, pump, group)
            else:
                ending = await self._take_over(run, container, pump, group)
                if ending is not None:
                    return ending
        except SlipwayError as error:
            return error
        self.settled.set()
        return await self._until_exit(run, pump)

    async def _start_new(
        self, run: Run, blueprint: Blueprint, pump: LogPump, group: asyncio.TaskGroup
    ) -> None:
        container = blueprint.container
        await self._parts.launcher.prepare(
            run, blueprint, boot_timeout_s=self._parts.boot_timeout_s
        )
        await self._open_streams(run, container, pump, group)
        began_s = time.monotonic()
        await run.agent.start(container.id, timeout_s=START_TIMEOUT_S)
        run.note_stage("exec", time.monotonic() - began_s)
        run.is_started = True
        await self._recorder.run_started(run)

    async def _take_over(
        self, run: Run, container: Container, pump: LogPump, group: asyncio.TaskGroup
    ) -> Ending | None:
        """Join a VM that an earlier engine started; an Ending if there is nothing to go on with."""
        hello = await run.channel.connected(self._parts.boot_timeout_s)
        run.note_hello(hello)
        process = next(
            (
                info
                for info in hello.processes
                if info.process_id == INIT_PROCESS_ID and info.container_id == container.id
            ),
            None,
        )
        if container.state is ContainerState.STOPPING and container.finished_at_ns is not None:
            await run.power_off()
            return Ending(container.exit_code, container.oom_killed, container.error)
        if process is None or process.state is ProcessState.CREATED:
            await run.power_off()
            return Ending(
                EXIT_CODE_START_FAILED,
                error="The engine ended while the container was starting; start it again.",
            )
        run.is_started = True
        await self._open_streams(run, container, pump, group, hello=hello)
        if container.state is ContainerState.STARTING:
            await self._recorder.run_started(run)
        return None

    async def _open_streams(
        self,
        run: Run,
        container: Container,
        pump: LogPump,
        group: asyncio.TaskGroup,
        *,
        hello: HelloInfo | None = None,
    ) -> None:
        offset = await pump.restore()
        if hello is None or hello.stream(OUTPUT_STREAM_ID) is not None:
            stream = run.channel.open_output(
                OUTPUT_STREAM_ID, offset=offset, window_bytes=LOG_WINDOW_BYTES
            )
            run.adopt_helper(group.create_task(run.end_if_corrupt(pump.run(stream))))
        else:
            pump.drained.set()  # its end was committed and acknowledged by an earlier engine
        if container.config.stdin_open:
            run.stdin = run.channel.open_input(STDIN_STREAM_ID)
            self._parts.attach_hub.open_input(container.id, run.stdin)
        for info in hello.streams if hello else ():
            if info.direction is Direction.OUTPUT and info.stream_id != OUTPUT_STREAM_ID:
                work = run.discard_output(info)
                run.adopt_helper(group.create_task(run.end_if_corrupt(work)))

    async def _until_exit(self, run: Run, pump: LogPump) -> Ending:
        seen = await asyncio.shield(run.init_exit)
        await pump.drained.wait()
        await self._recorder.exit_seen(seen)
        run.acknowledge_exit()
        await run.power_off()
        return Ending(seen.exit_code, seen.oom_killed)

    async def _start_failed(self, error: SlipwayError) -> Container:
        self.start_error = self.start_error or error
        self._parts.attach_hub.end(self.container_id)
        return await self._recorder.start_failed(error, exit_code_of(error))

    async def _undo_start(self, run: Run) -> None:
        """The engine ends in the middle of a start: take back what was made."""
        async with asyncio.timeout(DISPOSE_TIMEOUT_S):
            await self._dispose(run)
            await self._recorder.start_failed(
                SlipwayError("The engine was stopped while the container was starting"),
                EXIT_CODE_START_FAILED,
            )

    async def _dispose(self, run: Run) -> None:
        await run.vm.stop(VmEndReason.STOPPED, grace_s=2)
        await self._parts.consoles.keep(run.vm.console_path, self.container_id)
        await run.vm.discard()
        self.vm = None


def exit_code_of(error: SlipwayError) -> int:
    """The exit code that Docker shows for a command that could not be started."""
    if isinstance(error, GuestFailed):
        if error.errno in {_ENOENT, _ENOTDIR}:
            return EXIT_CODE_NOT_FOUND
        if error.errno in {_EACCES, _EISDIR, _ENOEXEC}:
            return EXIT_CODE_NOT_EXECUTABLE
    return EXIT_CODE_START_FAILED
