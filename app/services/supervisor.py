"""Owns every life: starts them, finds those of an earlier engine, repairs what a crash left."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable

from app.core.errors import Conflict, GuestFailed, NotFound, SlipwayError, Unavailable
from app.domain.container import Container, ContainerState
from app.domain.vm import VmEndReason, VmRecord
from app.hypervisor.port import Vm
from app.services.leftovers import Leftovers, end_stray, end_without_vm
from app.services.life import Life
from app.services.parts import EngineParts
from app.services.run import Run
from app.services.stats import Reading

SIGNAL_TIMEOUT_S = 3.0
KILL_TIMEOUT_S = 10.0
RECLAIM_TIMEOUT_S = 3.0  # the guest goes on with it; the next samples must not wait
VM_STOP_GRACE_S = 2.0
SIGKILL = 9
SIGTERM = 15
RESUMED_STOP_GRACE_S = 10.0
DEFECT_DELAY_S = 1.0

logger = logging.getLogger(__name__)


class Supervisor:
    """One task per container that lives; a failure in one never touches another.

    Args:
        parts: What lives work with.
        remove_ended: Removes a container with `--rm` after its end.
    """

    def __init__(
        self, parts: EngineParts, *, remove_ended: Callable[[str], Awaitable[None]]
    ) -> None:
        self._parts = parts
        self._remove_ended = remove_ended
        self._lives: dict[str, Life] = {}
        self._group: asyncio.TaskGroup | None = None
        self._closing = asyncio.Event()

    async def run(self, ready: asyncio.Event) -> None:
        """Find what runs, set `ready`, and own all lives until cancelled; VMs then go on."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            leftovers = Leftovers(
                self._parts,
                begin=lambda container, vm: self._begin(container, adopted=vm),
                finish_stop=self._go_on_stopping,
                remove_ended=self._remove_ended,
            )
            await leftovers.settle()
            ready.set()
            await self._closing.wait()

    # --- queries -----------------------------------------------------------------------------

    def life(self, container_id: str) -> Life | None:
        """The container's life, if it has one now."""
        return self._lives.get(container_id)

    def run_of(self, container: Container) -> Run:
        """The container's running VM.

        Raises:
            Unavailable: It has none just now.
            Conflict: Its process has ended.
        """
        life = self._lives.get(container.id)
        if life is None or life.run is None:
            raise Unavailable(
                f"The VM of container {container.name} is not there just now",
                advice="Wait a moment and look at its state.",
            )
        if life.run.init_exit.done():
            raise Conflict(
                f"Container {container.name} is not running: its process has just ended",
                advice="Start the container first.",
            )
        return life.run

    def vms(self) -> list[VmRecord]:
        """All VMs as shown."""
        return [
            run.record(hypervisor=self._parts.hypervisor.name, accelerator=self._parts.accelerator)
            for run in self._runs()
        ]

    def _runs(self) -> Iterable[Run]:
        """Those of ended lives too, whose VMs are on their way out."""
        for newest in self._lives.values():
            life: Life | None = newest
            while life is not None:
                run = life.run or life.leaving
                if run is not None:
                    yield run
                life = life.after

    def samplers(self) -> Iterable[tuple[str, Callable[[], Awaitable[Reading]]]]:
        """How to read each running container's numbers."""
        return [
            (container_id, life.run.read_stats)
            for container_id, life in self._lives.items()
            if life.run is not None and life.run.is_started and not life.run.init_exit.done()
        ]

    def memory_samplers(self) -> Iterable[tuple[str, Callable[[], Awaitable[None]]]]:
        """How to measure what the host gives each VM."""
        runs = (life.run for life in self._lives.values())
        return [(run.vm.spec.id, run.sample_host_memory) for run in runs if run is not None]

    async def reclaim_cache(self, container_id: str, size_bytes: int) -> int:
        """Take page cache back from a container; gives how much it was.

        Raises:
            SlipwayError: It has no VM now, or its guest refused.
        """
        life = self._lives.get(container_id)
        if life is None or life.run is None:
            raise Unavailable(f"Container {container_id[:12]} has no VM now")
        return await life.run.agent.reclaim(container_id, size_bytes, timeout_s=RECLAIM_TIMEOUT_S)

    async def release_disk(self, container_id: str) -> None:
        """End what serves the files of a container that does not run: its disk goes."""
        await self._parts.service_vms.give_way(container_id)

    # --- commands ----------------------------------------------------------------------------

    async def launch(self, container: Container) -> None:
        """Start a container that is recorded as STARTING; returns when its process runs.

        A VM of its last run that is still on its way out is waited for. A caller that goes away
        does not end the start.

        Raises:
            SlipwayError: Why it did not start; nothing of it is left then.
        """
        life = self._begin(container, adopted=None, after=self._lives.get(container.id))
        await life.settled.wait()
        if life.start_error is not None:
            raise life.start_error

    async def stop(self, container: Container, *, signal_number: int, grace_s: float) -> None:
        """End a container that is recorded as STOPPING; returns when that is recorded.

        The ladder: signal, SIGKILL after `grace_s`, the VM's own ladder if the guest does not obey.
        """
        life = self._lives.get(container.id)
        if life is None:
            await self._parts.registry.update(container.id, _end_without_life)
            return
        life.interrupt()
        await life.settled.wait()
        steps = [(SIGKILL, KILL_TIMEOUT_S)]
        if signal_number != SIGKILL:
            steps.insert(0, (signal_number, grace_s))
        elif life.run is not None and life.run.vm.pause_reason:
            steps.clear()  # held, on a full disk say: its guest hears nothing, and space is wanted
        for number, wait_s in steps:
            obeys = life.run is not None and await self._signal_and_thaw(life.run, number)
            if await _finished_within(life, wait_s if obeys else 0):
                return
        if life.run is not None:
            await life.run.vm.stop(VmEndReason.STOPPED, grace_s=VM_STOP_GRACE_S)
        await life.finished.wait()

    async def until_gone(self, container_id: str) -> None:
        """Wait until no VM of an ended container is left; its scratch disk is whole then."""
        life = self._lives.get(container_id)
        if life is not None:
            await life.gone.wait()

    async def let_go(self, container_id: str) -> None:
        """End the VM of a container whose disk is about to be removed; returns when it is gone."""
        life = self._lives.get(container_id)
        if life is not None:
            await life.abandon()
            await life.gone.wait()

    async def _signal_and_thaw(self, run: Run, number: int) -> bool:
        """Signal the first process, also a frozen one; False if the guest does not obey."""
        if run.init_exit.done():
            return True  # it has ended, and that is about to be recorded
        answers = await asyncio.gather(  # the guest works them off in this order
            run.agent.signal(run.container_id, number, timeout_s=SIGNAL_TIMEOUT_S),
            run.agent.thaw(run.container_id, timeout_s=SIGNAL_TIMEOUT_S),
            return_exceptions=True,
        )
        for error in answers:
            if isinstance(error, SlipwayError) and not isinstance(error, GuestFailed):
                logger.warning("Signal %d to %s: %s", number, run.container_id[:12], error.message)
                return False
            if isinstance(error, BaseException) and not isinstance(error, GuestFailed):
                raise error
        return True  # a guest that refuses has no such process any more

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Future[None]:
        """Run a command in the supervisor's group; its error goes to whoever awaits the future.

        Raises:
            Unavailable: The engine is not ready yet, or ends.
        """
        group = self._require_group(work)
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        settling = _settle(outcome, work)
        try:
            group.create_task(settling)
        except RuntimeError as error:  # the group takes no more: so says TaskGroup
            settling.close()
            work.close()
            raise Unavailable("The engine is ending") from error
        return outcome

    def _require_group(self, work: Coroutine[None, None, None]) -> asyncio.TaskGroup:
        if self._group is None:
            work.close()
            raise Unavailable("The engine is not ready yet", advice="Try again in a moment.")
        return self._group

    # --- lives -------------------------------------------------------------------------------

    def _go_on_stopping(self, container: Container) -> None:
        """A stop was cut short by the engine's end."""
        logger.info("Container %s was being stopped: going on with it", container.name)
        self.spawn(self.stop(container, signal_number=SIGTERM, grace_s=RESUMED_STOP_GRACE_S))

    def _begin(
        self, container: Container, *, adopted: Vm | None, after: Life | None = None
    ) -> Life:
        life = Life(container, self._parts, after=after)
        drive = self._drive(life, container, adopted)
        group = self._require_group(drive)
        self._lives[container.id] = life
        group.create_task(drive)
        if container.config.auto_remove:
            group.create_task(self._remove_after(life, container))
        return life

    async def _remove_after(self, life: Life, container: Container) -> None:
        """Remove a container with `--rm` as soon as it has ended: its VM need not save the disk."""
        await life.finished.wait()
        if life.is_restarted:
            return
        try:
            await self._remove_ended(container.id)
        except SlipwayError as error:
            logger.warning("Container %s not removed: %s", container.name, error.message)

    async def _drive(self, life: Life, container: Container, adopted: Vm | None) -> None:
        try:
            while not await self._drive_once(life, container, adopted):
                found = await self._look_again(container)
                adopted = life.vm
                if life.finished.is_set() or found is None or not _goes_on(found, adopted):
                    if adopted is not None:
                        await end_stray(adopted)
                    break
                container = found
        finally:
            life.finished.set()
            life.gone.set()
            if self._lives.get(container.id) is life:
                del self._lives[container.id]
            if life.leaving is not None:  # a defect ended it
                self._parts.registry.vm_gone(container.id, life.leaving.vm.spec.id)

    async def _drive_once(self, life: Life, container: Container, adopted: Vm | None) -> bool:
        """Drive a life to its end; False if a defect of ours ended that, and the VM may run on.

        A defect must end neither the siblings nor the container: its VM is taken over again.
        """
        try:
            await life.drive(container, adopted=adopted)
        except Exception:
            logger.exception("Supervision of container %s failed: taken up again", container.name)
            return False
        return True

    async def _look_again(self, container: Container) -> Container | None:
        """The record after a defect, as soon as it can be read; None if it is gone."""
        while True:
            await asyncio.sleep(DEFECT_DELAY_S)
            try:
                return await self._parts.registry.find(container.id)
            except NotFound:
                return None
            except SlipwayError as error:
                logger.warning("Container %s: %s", container.name, error.message)


def _goes_on(container: Container, vm: Vm | None) -> bool:
    """Whether there is something to take up again after a defect."""
    return container.state is ContainerState.RESTARTING or (container.is_live and vm is not None)


def _end_without_life(before: Container) -> Container:
    return end_without_vm(before) if before.is_live else before


async def _settle(outcome: asyncio.Future[None], work: Coroutine[None, None, None]) -> None:
    try:
        await work
    except asyncio.CancelledError:
        outcome.cancel()
        raise
    except Exception as error:  # noqa: BLE001 - handed to the caller, whatever it is
        if not outcome.done():
            outcome.set_exception(error)
            outcome.exception()  # a caller that has gone away does not make it "never retrieved"
    else:
        if not outcome.done():
            outcome.set_result(None)


async def _finished_within(life: Life, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await life.finished.wait()
    except TimeoutError:
        return False
    return True
