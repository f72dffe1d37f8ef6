"""Further processes in a running container."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from app.core.errors import GuestFailed, InvalidFields, SlipwayError, Unavailable
from app.domain import container as rules
from app.domain.container import Container
from app.domain.container_config import plan_process
from app.domain.log import LogStream
from app.guest.agent_types import ProcessExited, ProcessSpec
from app.guest.capabilities import capability_mask, capability_names
from app.guest.records import RecordDecoder, Source
from app.guest.streams import OutputStream
from app.oci.store import ImageStore
from app.services.registry import ContainerRegistry
from app.services.run import Run
from app.services.supervisor import Supervisor

SIGKILL = 9
ABANDON_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class ExecConfig:
    """A process to run beside the container's own; empty means as the container's."""

    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    tty: bool = False


@dataclass(frozen=True)
class ExecOutput:
    """A piece of output, as the process wrote it."""

    stream: LogStream
    data: bytes


@dataclass(frozen=True)
class ExecEnd:
    """The process has ended; nothing follows."""

    exit_code: int


class ExecService:
    """Runs commands and gives their output; a caller that stops reading holds the process back."""

    def __init__(
        self, registry: ContainerRegistry, images: ImageStore, supervisor: Supervisor
    ) -> None:
        self._registry = registry
        self._images = images
        self._supervisor = supervisor

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
        if not config.command:
            raise InvalidFields({"command": "No exec command specified"})
        container = await self._registry.find(reference)
        rules.require_running(container, "exec in")
        run = self._supervisor.run_of(container)
        process_id = secrets.token_hex(32)
        spec = self._describe(container, config, run.new_stream_id())
        ended = run.expect_exec_exit(process_id)
        try:
            await run.agent.exec(container.id, process_id, spec)
            stream = run.channel.open_output(spec.output_stream, offset=0)
            try:
                yield _output_until_end(stream, ended)
            finally:
                if not stream.is_finished:
                    # In the supervisor's group: whoever hung up has cancelled what awaits here.
                    with contextlib.suppress(Unavailable):  # the next engine finds it
                        self._supervisor.spawn(_abandon(run, container.id, process_id, stream))
        finally:
            run.forget_exec(process_id)

    def _describe(self, container: Container, config: ExecConfig, stream_id: int) -> ProcessSpec:
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
        names = capability_names(own.cap_add, own.cap_drop)
        return ProcessSpec(
            args=plan.args,
            env=plan.env,
            cwd=plan.working_dir,
            user=plan.user,
            tty=config.tty,
            output_stream=stream_id,
            capabilities=capability_mask(names),
            no_new_privileges=own.no_new_privileges,
        )


async def _abandon(run: Run, container_id: str, process_id: str, stream: OutputStream) -> None:
    """Kill a command that nobody waits for, and take its output so that the guest forgets it."""
    with contextlib.suppress(SlipwayError, TimeoutError):
        async with asyncio.timeout(ABANDON_TIMEOUT_S):
            with contextlib.suppress(GuestFailed):  # it has just ended by itself
                await run.agent.signal(container_id, SIGKILL, process_id=process_id)
            async for chunk in stream:
                stream.acknowledge(chunk.end_offset, eof=chunk.eof)
    stream.close()


async def _output_until_end(
    stream: OutputStream, ended: "asyncio.Future[ProcessExited]"
) -> AsyncIterator[ExecOutput | ExecEnd]:
    decoder = RecordDecoder(0)
    async for chunk in stream:
        for record in decoder.feed(chunk.data):
            source = LogStream.STDERR if record.source is Source.STDERR else LogStream.STDOUT
            yield ExecOutput(source, record.data)
            stream.acknowledge(record.end_offset)
        if chunk.eof:
            stream.acknowledge(chunk.end_offset, eof=True)
    yield ExecEnd((await ended).exit_code)
