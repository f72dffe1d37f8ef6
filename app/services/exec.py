"""Further processes in a running container."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from app.core.errors import Conflict, DeadlineExceeded, InvalidFields, NotFound, SlipwayError
from app.domain import container as rules
from app.domain.container import Container
from app.domain.container_config import plan_process
from app.domain.exec import ExecConfig, ExecState, ExecView
from app.domain.log import LogStream
from app.guest.agent_types import ProcessExited, ProcessSpec
from app.guest.capabilities import ALL_CAPABILITIES, capability_mask
from app.guest.records import RecordDecoder
from app.guest.streams import InputStream, OutputStream
from app.oci.store import ImageStore
from app.services.attachments import Attachment, pieces_of
from app.services.ending import EXIT_CODE_KILLED
from app.services.events import EventService
from app.services.guest_spec import capabilities, rlimits_of
from app.services.registry import ContainerRegistry, Happening
from app.services.run import Run
from app.services.supervisor import Supervisor

SIGKILL = 9
ABANDON_TIMEOUT_S = 15.0
STARTED_TIMEOUT_S = 10.0
EXIT_TIMEOUT_S = 30.0  # between the end of the output and the news of the exit
KEPT_EXECS = 2_000
EXIT_CODE_NOT_STARTED = 126  # Docker's, whatever the reason (moby, daemon/exec.go)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExecOutput:
    """A piece of output, as the process wrote it."""

    stream: LogStream
    data: bytes


@dataclass(frozen=True)
class ExecEnd:
    """The process has ended; nothing follows."""

    exit_code: int


class ExecProcess:
    """One exec, from its creation until it is forgotten.

    Attributes:
        output: What it writes, for one reader; who does not read holds it back.
        stdin: Its input once it runs, if it has one.
        started: Set once it runs, or could not be started.
    """

    def __init__(self, container: Container, config: ExecConfig) -> None:
        self.container = container
        self.config = config
        self.view = ExecView(secrets.token_hex(32), container.id, config)
        self.output = Attachment()
        self.stdin: InputStream | None = None
        self.started = asyncio.Event()

    def begun(self, pid: int, stdin: InputStream | None) -> None:
        """It runs."""
        self.view = replace(self.view, state=ExecState.RUNNING, pid=pid)
        self.stdin = stdin
        self.started.set()

    def ended(self, exit_code: int) -> None:
        """It does not run any more, or never did."""
        self.view = replace(self.view, state=ExecState.EXITED, exit_code=exit_code)
        self.started.set()
        self.output.end()


class ExecService:
    """Runs commands and gives their output; a caller that stops reading holds the process back."""

    def __init__(
        self,
        registry: ContainerRegistry,
        images: ImageStore,
        supervisor: Supervisor,
        events: EventService,
    ) -> None:
        self._registry = registry
        self._images = images
        self._supervisor = supervisor
        self._events = events
        self._known: dict[str, ExecProcess] = {}

    # --- step by step ------------------------------------------------------------------------

    async def create(self, reference: str, config: ExecConfig) -> ExecView:
        """Describe a process to be started later; the oldest that do not run are forgotten.

        Raises:
            NotFound: No such container.
            NotRunning, IsPaused: So it is.
            InvalidFields: There is no command.
        """
        process = await self._make(reference, config)
        self._forget_some()
        self._known[process.view.id] = process
        self._tell(process, f"exec_create: {config.shown_command}")
        return process.view

    def get(self, exec_id: str) -> ExecView:
        """One exec as it is now.

        Raises:
            NotFound: There is none of that id.
        """
        return self._find(exec_id).view

    def ids_of(self, container_id: str) -> list[str]:
        """What runs in a container, or may yet be started."""
        return [
            each.view.id
            for each in self._known.values()
            if each.view.container_id == container_id and each.view.state is not ExecState.EXITED
        ]

    async def start(self, exec_id: str, *, rows: int = 0, columns: int = 0) -> ExecProcess:
        """Start it; returns once it runs. A caller that goes away does not end it.

        Whoever does not read `output` must close it.

        Raises:
            NotFound: There is no such exec, or its container is gone.
            Conflict: It has been started before, or its container does not run.
            GuestFailed: The command can't be run; errno ENOENT or EACCES as a shell's 127, 126.
        """
        process = self._find(exec_id)
        if process.view.state is not ExecState.CREATED:
            what = "is already running" if process.view.is_running else "has already run"
            raise Conflict(f"error: exec command {exec_id} {what}")
        await self._start(process, rows, columns)
        return process

    async def resize(self, exec_id: str, *, rows: int, columns: int) -> None:
        """Set the size of its terminal; waits a little for it to start.

        Raises:
            NotFound: There is no such exec.
            Conflict: It has ended.
            DeadlineExceeded: Nobody starts it.
        """
        process = self._find(exec_id)
        try:
            async with asyncio.timeout(STARTED_TIMEOUT_S):
                await process.started.wait()
        except TimeoutError as exc:
            raise DeadlineExceeded("timeout waiting for exec session ready") from exc
        if not process.view.is_running:
            raise Conflict(f"exec process {exec_id} is not running")
        container = await self._registry.find(process.view.container_id)
        run = self._supervisor.run_of(container)
        await run.agent.resize(container.id, rows=rows, columns=columns, process_id=exec_id)

    # --- at once -----------------------------------------------------------------------------

    @asynccontextmanager
    async def exec(
        self, reference: str, config: ExecConfig
    ) -> AsyncIterator[AsyncIterator[ExecOutput | ExecEnd]]:
        """Run a command; leaving the context before its end kills it.

        Raises:
            NotFound: No such container.
            Conflict: It does not run, or is paused.
            InvalidFields: There is no command.
            GuestFailed: The command can't be run; errno ENOENT or EACCES as a shell's 127, 126.
        """
        process = await self._make(reference, config)
        try:
            await self._start(process, 0, 0)
            yield _output_until_end(process)
        finally:
            process.output.close()
            if process.view.state is not ExecState.EXITED:
                # In the supervisor's group: whoever hung up has cancelled what awaits here.
                self._supervisor.spawn(self._abandon(process))

    async def _abandon(self, process: ExecProcess) -> None:
        """Kill a command that nobody waits for."""
        with contextlib.suppress(SlipwayError, TimeoutError):
            async with asyncio.timeout(ABANDON_TIMEOUT_S):
                await process.started.wait()
                run = self._supervisor.run_of(process.container)
                await run.agent.signal(process.container.id, SIGKILL, process_id=process.view.id)

    # --- within ------------------------------------------------------------------------------

    async def _make(self, reference: str, config: ExecConfig) -> ExecProcess:
        if not config.command:
            raise InvalidFields({"command": "No exec command specified"})
        container = await self._registry.find(reference)
        rules.require_running(container, "exec in")
        return ExecProcess(container, config)

    def _find(self, exec_id: str) -> ExecProcess:
        if (process := self._known.get(exec_id)) is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return process

    def _forget_some(self) -> None:
        surplus = len(self._known) - KEPT_EXECS + 1
        if surplus > 0:
            idle = [key for key, each in self._known.items() if not each.view.is_running]
            for key in idle[:surplus]:
                del self._known[key]

    async def _start(self, process: ExecProcess, rows: int, columns: int) -> None:
        process.view = replace(process.view, state=ExecState.STARTING)
        await asyncio.shield(self._supervisor.spawn(self._begin(process, rows, columns)))

    async def _begin(self, process: ExecProcess, rows: int, columns: int) -> None:
        exec_id = process.view.id
        try:
            container = await self._registry.find(process.view.container_id)
            rules.require_running(container, "exec in")
            run = self._supervisor.run_of(container)
            spec = self._describe(container, process.config, run, rows, columns)
            ended = run.expect_exec_exit(exec_id)
            try:
                pid = await run.agent.exec(container.id, exec_id, spec)
            except BaseException:
                run.forget_exec(exec_id)
                raise
        except BaseException:
            process.ended(EXIT_CODE_NOT_STARTED)
            raise
        output = run.channel.open_output(spec.output_stream, offset=0)
        process.begun(pid, run.channel.open_input(spec.stdin_stream) if spec.stdin_stream else None)
        self._tell(process, f"exec_start: {process.config.shown_command}")
        self._supervisor.spawn(self._relay(process, run, output, ended))

    async def _relay(
        self,
        process: ExecProcess,
        run: Run,
        output: OutputStream,
        ended: "asyncio.Future[ProcessExited]",
    ) -> None:
        """Bring its output to the reader, or nowhere if that has gone, and note its end."""
        exit_code = EXIT_CODE_KILLED
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            decoder = RecordDecoder(0)
            async for chunk in output:
                records = decoder.feed(chunk.data)
                process.output.offer(pieces_of(records))
                await process.output.made_room(never)
                offset = chunk.end_offset if chunk.eof else decoder.record_offset
                output.acknowledge(offset, eof=chunk.eof)
            async with asyncio.timeout(EXIT_TIMEOUT_S):
                exit_code = (await ended).exit_code
        except (SlipwayError, TimeoutError) as error:
            logger.warning("Exec %s has no end: %r", process.view.id[:12], error)
        finally:
            output.close()
            run.forget_exec(process.view.id)
            process.ended(exit_code)
            self._tell(process, "exec_die", exitCode=str(exit_code))

    def _tell(self, process: ExecProcess, action: str, **more: str) -> None:
        if process.view.id in self._known:
            attributes = {"execID": process.view.id, **more}
            self._events.tell(Happening(action, attributes=attributes).event(process.container))

    def _describe(
        self, container: Container, config: ExecConfig, run: Run, rows: int, columns: int
    ) -> ProcessSpec:
        own = container.config
        merged = replace(
            own,
            entrypoint=(),
            command=config.command,
            env=(*own.env, *config.env),
            user=config.user or own.user,
            working_dir=config.working_dir or own.working_dir,
            tty=config.tty,
        )
        plan = plan_process(
            merged,
            self._images.get(container.image_id).config,
            hostname=own.hostname or container.short_id,
        )
        return ProcessSpec(
            args=plan.args,
            env=plan.env,
            cwd=plan.working_dir,
            user=plan.user,
            groups=own.groups,
            tty=config.tty,
            rows=rows,
            columns=columns,
            stdin_stream=run.new_stream_id() if config.stdin else 0,
            output_stream=run.new_stream_id(),
            capabilities=capability_mask(
                ALL_CAPABILITIES if config.privileged else capabilities(own)
            ),
            no_new_privileges=own.no_new_privileges,
            rlimits=rlimits_of(own),
            oom_score_adj=own.oom_score_adj,
        )


async def _output_until_end(process: ExecProcess) -> AsyncIterator[ExecOutput | ExecEnd]:
    async for piece in process.output:
        yield ExecOutput(piece.stream, piece.data)
    yield ExecEnd(process.view.exit_code or 0)
