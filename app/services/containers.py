"""What can be done with containers; the dashboard and REST call this and nothing below."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from app.core.errors import AlreadyInState, Conflict, InvalidArgument, NotFound
from app.core.ids import new_container_id
from app.domain import container as rules
from app.domain.container import LIVE_STATES, Container, ContainerState
from app.domain.container_checks import check_config, check_name
from app.domain.container_config import ContainerConfig, plan_process
from app.domain.image import ImageConfig
from app.domain.names import random_name
from app.domain.signals import SIGKILL, signal_number
from app.domain.sizing import LaunchPlan
from app.oci.store import ImageStore
from app.services.admission import Admission
from app.services.console import ConsoleArchive, read_console
from app.services.exits import WaitCondition, is_met
from app.services.guest_spec import check_security
from app.services.registry import ContainerRegistry, Happening
from app.services.supervisor import Supervisor
from app.storage.scratch import ScratchDisks

NAME_ATTEMPTS = 8
BUSY_STATES = LIVE_STATES | {ContainerState.RESTARTING}
ENDED_STATES = frozenset({ContainerState.CREATED, ContainerState.EXITED, ContainerState.DEAD})


class ContainerService:
    """Use cases. A reference is a full id, a unique prefix of one, or a name.

    Every method raises NotFound for an unknown reference. What a user asked for is carried out in
    the supervisor's tasks: a caller that goes away does not undo it.
    """

    def __init__(
        self,
        *,
        registry: ContainerRegistry,
        images: ImageStore,
        scratch: ScratchDisks,
        consoles: ConsoleArchive,
        admission: Admission,
        stop_grace_s: int,
    ) -> None:
        self._registry = registry
        self._images = images
        self._scratch = scratch
        self._consoles = consoles
        self._admission = admission
        self._stop_grace_s = stop_grace_s
        self._removals: set[str] = set()
        self._supervisor: Supervisor | None = None

    def bind(self, supervisor: Supervisor) -> None:
        """Give it the supervisor, which in turn removes `--rm` containers through it."""
        self._supervisor = supervisor

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor; there is one before any request is served."""
        if self._supervisor is None:
            raise RuntimeError("ContainerService.bind was not called")
        return self._supervisor

    # --- queries -----------------------------------------------------------------------------

    async def list(self, *, all: bool = True) -> Sequence[Container]:
        """Newest first; without `all` only those that live or wait for a restart."""
        return await self._registry.list(states=None if all else BUSY_STATES)

    async def get(self, reference: str) -> Container:
        """One container."""
        return await self._registry.find(reference)

    async def image_config(self, container: Container) -> ImageConfig | None:
        """The image's own settings; None if the image is gone."""
        try:
            return self._images.get(container.image_id).config
        except NotFound:
            return None

    async def plan(self, config: ContainerConfig) -> LaunchPlan:
        """What a launch would cost now; of an image that is not here, with one layer."""
        try:
            layer_count = len(self._images.get(config.image).mounted_diff_ids)
        except (NotFound, InvalidArgument):
            layer_count = 1
        return await self._admission.plan(config, layer_count=layer_count)

    async def console(self, container_id: str) -> bytes:
        """Boot console of the present VM, or of the last one; at most 256 KiB, the newest."""
        life = self.supervisor.life(container_id)
        run = None if life is None else life.run or life.leaving
        present = b"" if run is None else await read_console(run.vm.console_path)
        return present or await self._consoles.read(container_id)

    # --- commands ----------------------------------------------------------------------------

    async def create(
        self, config: ContainerConfig, *, name: str | None = None, initiator: str
    ) -> Container:
        """Record a new container; nothing runs yet.

        Raises:
            InvalidFields: Faults by field.
            NotFound: The image does not exist.
            Conflict: The name is taken.
        """
        check_config(config)
        check_security(config)
        chosen = check_name(name) if name else None
        # The lease keeps the image until the record refers to it.
        async with self._images.lease(config.image) as image:
            plan_process(config, image.config, hostname="")
            container = Container(
                id=new_container_id(),
                name=chosen or "",
                image_id=image.id,
                config=config,
                created_at_ns=time.time_ns(),
            )
            happening = Happening("create", initiator)
            if chosen:
                await self._registry.add(container, happening)
                return container
            return await self._add_with_drawn_name(container, happening)

    async def _add_with_drawn_name(self, container: Container, happening: Happening) -> Container:
        attempt = 0
        while True:
            name = random_name(secrets.randbelow, attempt=attempt)
            named = replace(container, name=name)
            try:
                await self._registry.add(named, happening)
            except Conflict:
                attempt += 1  # from the fourth on a number follows the name: this ends
                if attempt == NAME_ATTEMPTS:
                    raise
            else:
                return named

    async def start(self, reference: str, *, initiator: str) -> None:
        """Start; returns when the container's process runs.

        Raises:
            AlreadyInState: It runs already.
            SlipwayError: Why it did not start; see the container's `error` too.
        """
        container = await self.get(reference)
        await self._carry_out(self._start(container.id, initiator))

    async def _start(self, container_id: str, initiator: str) -> None:
        claimed = await self._registry.update(
            container_id, rules.begin_start, Happening("start-requested", initiator)
        )
        await self.supervisor.launch(claimed)

    async def _carry_out(self, work: Coroutine[None, None, None]) -> None:
        """Run a command to its end even if its caller goes away."""
        await asyncio.shield(self.supervisor.spawn(work))

    async def stop(
        self,
        reference: str,
        *,
        timeout_s: int | None = None,
        signal: str = "",
        initiator: str,
    ) -> None:
        """Stop signal (its own, or `signal`), then SIGKILL after the grace; returns at its end.

        Raises:
            AlreadyInState: It does not run.
            InvalidFields: Linux has no such signal.
        """
        container = await self.get(reference)
        number = signal_number(signal) if signal else self._stop_signal(container)
        await self._carry_out(self._stop(container, number, timeout_s, initiator))

    async def _stop(
        self, container: Container, number: int, timeout_s: int | None, initiator: str
    ) -> None:
        await self._end(container, number, timeout_s, initiator, "stop")
        await self._registry.note(container, Happening("stopped", initiator))

    async def _end(
        self, container: Container, number: int, timeout_s: int | None, initiator: str, action: str
    ) -> None:
        grace_s = next(
            seconds
            for seconds in (timeout_s, container.config.stop_timeout_s, self._stop_grace_s)
            if seconds is not None
        )
        claimed = await self._registry.update(
            container.id, rules.begin_stop, Happening(action, initiator, {"signal": str(number)})
        )
        await self.supervisor.stop(claimed, signal_number=number, grace_s=grace_s)

    def _stop_signal(self, container: Container) -> int:
        if container.config.stop_signal:
            return signal_number(container.config.stop_signal)
        try:
            image = self._images.get(container.image_id)
        except NotFound:
            return signal_number("SIGTERM")
        return signal_number(image.config.stop_signal or "SIGTERM")

    async def kill(self, reference: str, *, signal: str = "SIGKILL", initiator: str) -> None:
        """Send a signal; SIGKILL also returns only when the container has ended.

        Raises:
            Conflict: It does not run.
            InvalidFields: Linux has no such signal.
        """
        container = await self._after_start(reference)
        number = signal_number(signal)
        if container.state is not ContainerState.PAUSED or number != SIGKILL:
            rules.require_running(container, "kill")
        if number == SIGKILL:
            await self._carry_out(self._end(container, SIGKILL, 0, initiator, "kill"))
            return
        by_hand = number == self._stop_signal(container)
        await self._registry.update(
            container.id,
            lambda before: replace(before, stopped_by_user=before.stopped_by_user or by_hand),
            Happening("kill", initiator, {"signal": str(number)}),
        )
        await self.supervisor.run_of(container).agent.signal(container.id, number)

    async def _after_start(self, reference: str) -> Container:
        """The container once a start under way is settled: its output may be seen before."""
        container = await self.get(reference)
        life = self.supervisor.life(container.id)
        if container.state is ContainerState.STARTING and life is not None:
            await life.settled.wait()
            container = await self.get(container.id)
        return container

    async def restart(
        self,
        reference: str,
        *,
        timeout_s: int | None = None,
        signal: str = "",
        initiator: str,
    ) -> None:
        """Stop if it runs, then start."""
        container = await self.get(reference)
        if container.state in BUSY_STATES:
            signal_number(signal or "SIGTERM")  # an unknown one must leave all as it is
            if (life := self.supervisor.life(container.id)) is not None:
                life.is_restarted = True
            with suppress(AlreadyInState):  # it ended by itself just now
                await self.stop(
                    container.id, timeout_s=timeout_s, signal=signal, initiator=initiator
                )
        await self.start(container.id, initiator=initiator)
        await self._registry.note(container, Happening("restarted", initiator))

    async def pause(self, reference: str, *, initiator: str) -> None:
        """Freeze every process of the container; its VM runs on.

        Raises:
            Conflict: It does not run, or is paused already.
        """
        container = await self.get(reference)
        rules.require_running(container, "pause")
        await self.supervisor.run_of(container).agent.freeze(container.id)
        await self._registry.update(container.id, rules.paused, Happening("pause", initiator))

    async def unpause(self, reference: str, *, initiator: str) -> None:
        """Let a paused container go on.

        Raises:
            Conflict: It is not paused.
        """
        container = await self.get(reference)
        rules.require_paused(container)
        await self.supervisor.run_of(container).agent.thaw(container.id)
        await self._registry.update(container.id, rules.unpaused, Happening("unpause", initiator))

    async def write_stdin(
        self, container: Container, chunks: AsyncIterator[bytes], *, close: bool
    ) -> None:
        """Write to its standard input, held back by the process's reading.

        Raises:
            Conflict: It does not run, has no open input, or has closed it.
        """
        rules.require_running(container, "write to")
        stdin = self.supervisor.run_of(container).stdin
        if stdin is None:
            raise Conflict(
                f"Container {container.name} has no standard input",
                advice="Create it with stdin_open.",
            )
        async for chunk in chunks:
            if chunk:
                await stdin.write(chunk)
        if close:
            stdin.write_eof()

    async def resize(self, container: Container, *, rows: int, columns: int) -> None:
        """Set the size of its terminal.

        Raises:
            Conflict: It does not run, or has no terminal.
        """
        container = await self._after_start(container.id)
        rules.require_running(container, "resize")
        if not container.config.tty:
            raise Conflict(f"Container {container.name} has no terminal")
        run = self.supervisor.run_of(container)
        await run.agent.resize(container.id, rows=rows, columns=columns)

    async def rename(self, reference: str, new_name: str, *, initiator: str) -> Container:
        """Give it another name.

        Raises:
            Conflict: The name is taken, or its own.
            InvalidFields: The name has other characters than Docker allows.
        """
        container = await self.get(reference)
        name = check_name(new_name)
        if name == container.name:
            raise Conflict("Renaming a container with the same name as its current name", advice="")
        return await self._registry.update(
            container.id,
            lambda before: replace(before, name=name),
            Happening("rename", initiator, {"oldName": container.name}),
        )

    async def wait(self, reference: str) -> int:
        """Wait, without a deadline, until it does not run; returns its exit code at once if so."""
        async with self.waiting(reference) as exit_code:
            return await exit_code

    @asynccontextmanager
    async def waiting(
        self, reference: str, condition: WaitCondition = WaitCondition.NOT_RUNNING
    ) -> AsyncIterator[Awaitable[int]]:
        """Its exit code once the condition is met; from entering on no end is missed."""
        container = await self.get(reference)
        async with self._registry.exits.expect(container, condition) as exit_code:
            container = await self.get(container.id)
            if is_met(container, condition) and not exit_code.done():
                exit_code.set_result(container.exit_code)
            yield exit_code

    async def scratch_bytes(self, container: Container) -> int:
        """What its scratch disk takes on the host; 0 before its first start."""
        with suppress(NotFound):
            return await self._scratch.used_bytes(container.id)
        return 0

    async def until_gone(self, reference: str) -> None:
        """Wait until the VM of an ended container is gone: its end is told a moment before."""
        container = await self.get(reference)
        await self.supervisor.until_gone(container.id)

    async def remove(self, reference: str, *, force: bool = False, initiator: str) -> None:
        """Remove the container with its scratch disk and console; its log stays until retention.

        Raises:
            Conflict: It runs and `force` is not given.
        """
        container = await self.get(reference)
        await self._carry_out(self._remove(container, force, initiator))

    async def _remove(self, container: Container, force: bool, initiator: str) -> None:
        if force and (container.is_live or container.state is ContainerState.RESTARTING):
            await self._end(container, SIGKILL, 0, initiator, "kill")
        claimed = await self._registry.update(container.id, rules.begin_remove)
        await self._finish_removal(claimed, initiator)

    async def remove_ended(self, container_id: str) -> None:
        """Remove a container with `--rm` after its end, or go on with a removal cut short."""
        container = await self._registry.find(container_id)
        if container_id in self._removals:
            return
        if container.state is not ContainerState.REMOVING:
            container = await self._registry.update(container_id, rules.begin_remove)
        await self._finish_removal(container, "engine")

    async def _finish_removal(self, container: Container, initiator: str) -> None:
        self._removals.add(container.id)
        try:
            await self.supervisor.let_go(container.id)
            await self.supervisor.release_disk(container.id)
            await self._scratch.remove(container.id)
            await self._consoles.remove(container.id)
            await self._registry.delete(container, Happening("destroy", initiator))
        finally:
            self._removals.discard(container.id)
