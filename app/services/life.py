"""One container's life under the supervisor: runs, their ends, and restarts between them."""

import asyncio
import logging
import time

from app.core.errors import Conflict, SlipwayError
from app.domain.container import Container, ContainerState
from app.domain.container_options import NO_LOG_DRIVER
from app.domain.restart import next_delay_s
from app.domain.vm import VmEndReason
from app.guest.hello import HelloInfo
from app.guest.protocol import Direction
from app.hypervisor.port import Vm
from app.services.attachments import OutputTap
from app.services.ending import (
    EXIT_CODE_KILLED,
    EXIT_CODE_START_FAILED,
    Ending,
    ending_of_adopted,
    ending_of_vanished,
    exit_code_of,
)
from app.services.launch import PoweredOn
from app.services.parts import EngineParts
from app.services.pump import LOG_WINDOW_BYTES, LogPump
from app.services.recorder import LifeRecorder, describe
from app.services.run import OUTPUT_STREAM_ID, STDIN_STREAM_ID, Run

DISPOSE_TIMEOUT_S = 30.0
DISPOSE_GRACE_S = 2.0

logger = logging.getLogger(__name__)


class Life:
    """Drives one container until no run is left and none will follow.

    Owned by the supervisor's task group as one task. When the engine ends, the task is cancelled
    and the VM goes on; a start that was under way is undone.

    The end of a run is recorded and told as soon as exit code and output are stored. Its VM still
    has to sync and unmount the scratch disk then, so a life is `gone` later than it is `finished`,
    and the next one of the container waits for that.

    Args:
        container: The record: STARTING, RESTARTING, or that of a VM to take over.
        parts: What it works with.
        after: The container's life before, whose VM may still hold the scratch disk.

    Attributes:
        settled: Set once the first start of this life has succeeded or failed.
        start_error: Why the first start failed.
        finished: Set when the end is recorded and no run will follow.
        gone: Set by the supervisor when nothing of this life is left, its VM included.
        after: The life before, until it is gone.
        exit_code: Of the last run.
        run: The present run.
        leaving: The run that is over and whose VM is being removed.
        vm: The VM of the present or last run.
        is_restarted: It is stopped to be started again, so `--rm` does not mean this end.
    """

    def __init__(
        self, container: Container, parts: EngineParts, *, after: "Life | None" = None
    ) -> None:
        self.container_id = container.id
        self.settled = asyncio.Event()
        self.start_error: SlipwayError | None = None
        self.finished = asyncio.Event()
        self.gone = asyncio.Event()
        self.after = after
        self.exit_code = container.exit_code
        self.run: Run | None = None
        self.leaving: Run | None = None
        self.vm: Vm | None = None
        self._parts = parts
        self._recorder = LifeRecorder(container.id, parts)
        self.is_restarted = False
        self._interrupt = asyncio.Event()
        self._recording: asyncio.Task[Container] | None = None

    def interrupt(self) -> None:
        """Give up waiting for a restart, or for the life before."""
        self._interrupt.set()

    async def abandon(self) -> None:
        """End what VMs are left of an ended container whose disk is about to be removed."""
        life: Life | None = self
        while life is not None:
            if life.vm is not None:
                await life.vm.stop(VmEndReason.STOPPED, grace_s=DISPOSE_GRACE_S)
            life = life.after

    async def drive(self, container: Container, *, adopted: Vm | None) -> None:
        """Go through runs to the end.

        Args:
            container: The present record.
            adopted: A VM that an earlier engine, or a defect, has left. If the container is not
                live, its end stands in the record and only the VM is to be disposed of.
        """
        delay_s = next_delay_s(0, ran_for_s=0)
        try:
            if adopted is not None and not container.is_live:
                self._announce_end(container)
            if self.after is not None and not await self._outlast(self.after):
                return
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
                if container.state is not ContainerState.RESTARTING or self.finished.is_set():
                    return
                delay_s = next_delay_s(delay_s, ran_for_s=time.monotonic() - began_s)
        finally:
            self.settled.set()

    def _announce_end(self, container: Container) -> None:
        """The record has the end of a run: tell whoever waits for it."""
        self.exit_code = container.exit_code
        self.settled.set()
        if container.state is not ContainerState.RESTARTING:
            self.finished.set()

    async def _outlast(self, earlier: "Life") -> bool:
        """Wait until the life before is gone; False if this one was stopped meanwhile."""
        gone = asyncio.create_task(earlier.gone.wait())
        interrupted = asyncio.create_task(self._interrupt.wait())
        try:
            await asyncio.wait({gone, interrupted}, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done():
                self.start_error = Conflict("It was stopped before it started")
                self._announce_end(
                    await self._recorder.start_failed(self.start_error, EXIT_CODE_START_FAILED)
                )
                await gone
            self.after = None
        except asyncio.CancelledError:
            if not self.finished.is_set():
                await self._record_undone_start()
            raise
        finally:
            gone.cancel()
            interrupted.cancel()
        return not self.finished.is_set()

    async def _wait_to_restart(self, delay_s: float) -> Container | None:
        try:
            async with asyncio.timeout(delay_s):
                await self._interrupt.wait()
        except TimeoutError:
            started = await self._recorder.claim_restart()
            if started is not None:
                return started
        await self._recorder.restart_given_up()
        return None

    async def _give_up_if_stopped(self) -> None:
        """A stop of a container that is to be restarted need not wait for the VM to go."""
        await self._interrupt.wait()
        self._announce_end(await self._recorder.restart_given_up())

    async def _one_run(
        self, container: Container, adopted: Vm | None, *, failed: PoweredOn | None = None
    ) -> Container:
        powered: PoweredOn | None = None
        vm = adopted
        try:
            if vm is None:
                powered = await self._parts.launcher.power_on(container, after=failed)
                vm = powered.vm
        except SlipwayError as error:
            return await self._start_failed(error)
        run = Run(
            container.id,
            vm,
            self._recorder.observer(),
            booting=adopted is None,
            start_path=powered.path if powered else None,
            warm=powered.warm if powered else None,
        )
        run.is_started = adopted is not None and container.state is not ContainerState.STARTING
        self.run, self.vm, self._recording = run, vm, None
        try:
            if adopted is None:
                await self._recorder.vm_known(run)
            outcome = await self._supervise(run, container, powered)
        except asyncio.CancelledError:
            if not run.is_started and adopted is None:
                await self._undo_start(run)
            raise
        finally:
            self.run, self.leaving = None, run
        await self._dispose(run)
        if isinstance(outcome, Container):
            return outcome
        if isinstance(outcome, SlipwayError):
            reason = (await vm.wait()).reason
            if powered is not None and powered.may_go_on(run, reason):
                logger.warning("VM %s: %s; trying another", vm.spec.id, outcome.message)
                return await self._one_run(container, None, failed=powered)
            if not run.is_started:
                return await self._start_failed(outcome)
            outcome = Ending(EXIT_CODE_KILLED, error=describe(outcome))
        return await self._recorder.run_ended(
            exit_code=outcome.exit_code,
            oom_killed=outcome.oom_killed,
            error=outcome.error,
            at_ns=outcome.at_ns,
        )

    async def _supervise(
        self, run: Run, container: Container, powered: PoweredOn | None
    ) -> Container | Ending | SlipwayError:
        """Run until the VM is no longer needed or has ended.

        Returns the record if the end stands in it, else what to record; a SlipwayError means no
        start.
        """
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
            script = group.create_task(self._script(run, container, powered, pump, group))
            vm_end = group.create_task(run.vm.wait())
            background = [
                group.create_task(run.end_if_corrupt(work))
                for work in (
                    run.serve_channel(),
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
        if self._recording is not None:
            return self._recording.result()
        if not container.is_live:
            return container
        if outcome is not None:
            return outcome
        await pump.give_up()
        return ending_of_vanished(run, await run.vm.wait())

    async def _script(
        self,
        run: Run,
        container: Container,
        powered: PoweredOn | None,
        pump: LogPump,
        group: asyncio.TaskGroup,
    ) -> Container | Ending | SlipwayError:
        try:
            if powered is not None:
                await self._start_new(run, powered, pump, group)
            else:
                ending = await self._take_over(run, container, pump, group)
                if ending is not None:
                    return ending
        except SlipwayError as error:
            return error
        self.settled.set()
        return await self._until_exit(run, pump, group)

    async def _start_new(
        self, run: Run, powered: PoweredOn, pump: LogPump, group: asyncio.TaskGroup
    ) -> None:
        await self._parts.launcher.start(
            run,
            powered,
            boot_timeout_s=self._parts.boot_timeout_s,
            open_streams=lambda: self._open_streams(run, powered.container, pump, group),
        )
        run.is_started = True
        await self._recorder.run_started(run)

    async def _take_over(
        self, run: Run, container: Container, pump: LogPump, group: asyncio.TaskGroup
    ) -> Container | Ending | None:
        """Join a VM that an earlier engine started; its end if there is nothing to go on with."""
        hello = await run.channel.connected(self._parts.boot_timeout_s)
        run.note_hello(hello)
        if not container.is_live:
            await run.power_off()
            return container
        if (ending := ending_of_adopted(container, run.vm.spec.id, hello)) is not None:
            await run.power_off()
            return ending
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

    async def _until_exit(self, run: Run, pump: LogPump, group: asyncio.TaskGroup) -> Container:
        """See the exit, record and tell it once all output is stored, then let the VM go.

        An engine that dies before the VM is gone leaves one whose container has ended: the next
        engine takes it over and switches it off in good order.
        """
        seen = await asyncio.shield(run.init_exit)
        await pump.drained.wait()
        # A task of the group: a VM that vanishes now ends this script, but not the recording.
        self._recording = group.create_task(
            self._recorder.run_ended(
                exit_code=seen.exit_code,
                oom_killed=seen.oom_killed,
                error="",
                at_ns=seen.time_ns,
            )
        )
        ended = await asyncio.shield(self._recording)
        self._announce_end(ended)
        if ended.state is ContainerState.RESTARTING:
            run.adopt_helper(group.create_task(self._give_up_if_stopped()))
        run.acknowledge_exit()
        await run.power_off()
        return ended

    async def _start_failed(self, error: SlipwayError) -> Container:
        self.start_error = self.start_error or error
        self._parts.attach_hub.end(self.container_id)
        return await self._recorder.start_failed(error, exit_code_of(error))

    async def _undo_start(self, run: Run) -> None:
        """The engine ends in the middle of a start: take back what was made."""
        async with asyncio.timeout(DISPOSE_TIMEOUT_S):
            await self._dispose(run)
            await self._record_undone_start()

    async def _record_undone_start(self) -> None:
        async with asyncio.timeout(DISPOSE_TIMEOUT_S):
            await self._recorder.start_failed(
                SlipwayError("The engine was stopped while the container was starting"),
                EXIT_CODE_START_FAILED,
            )

    async def _dispose(self, run: Run) -> None:
        await run.close_channel()
        await run.vm.stop(VmEndReason.STOPPED, grace_s=DISPOSE_GRACE_S)
        await self._parts.consoles.keep(run.vm.console_path, self.container_id)
        await run.vm.discard()
        self.vm = self.leaving = None
        self._parts.registry.vm_gone(self.container_id, run.vm.spec.id)
