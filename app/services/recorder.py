"""Writes what happens to a container under the supervisor; waits out a database that refuses."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from app.core.errors import (
    AlreadyInState,
    Conflict,
    NotFound,
    ResourceExhausted,
    SlipwayError,
    Unavailable,
)
from app.domain import container as rules
from app.domain.container import Container, ContainerState
from app.domain.event import EventType
from app.domain.restart import should_restart
from app.services.parts import EngineParts
from app.services.registry import Condition, Happening, Rule
from app.services.run import Run, RunObserver

RETRY_DELAY_S = 1.0

logger = logging.getLogger(__name__)


class LifeRecorder:
    """The record of one container, as its life changes it."""

    def __init__(self, container_id: str, parts: EngineParts) -> None:
        self._container_id = container_id
        self._parts = parts

    def observer(self) -> RunObserver:
        """Callbacks for a run."""
        return RunObserver(
            silence_changed=self._silence_changed,
            backpressure_changed=self._backpressure_changed,
            out_of_memory=self._out_of_memory,
        )

    async def _persist(self, rule: Rule, happening: Happening | None = None) -> Container:
        """Apply a rule; a full disk or a busy database is waited out, since the fact stands."""
        while True:
            try:
                return await self._parts.registry.update(self._container_id, rule, happening)
            except (ResourceExhausted, Unavailable) as error:
                logger.warning("Container %s not recorded: %s", self._container_id, error.message)
                await asyncio.sleep(RETRY_DELAY_S)

    async def vm_known(self, run: Run) -> None:
        """A VM exists for the container."""
        await self._persist(lambda before: replace(before, vm_id=run.vm.spec.id))

    async def run_started(self, run: Run) -> None:
        """The first process runs."""
        stages = run.boot_stages
        total_ms = sum(stage.duration_ms for stage in stages)
        await self._persist(
            lambda before: rules.started(
                before, pid=run.vm.pid, at_ns=time.time_ns(), boot_stages=stages
            ),
            Happening(
                "start",
                attributes={
                    "boot_ms": f"{total_ms:.0f}",
                    "vm": run.vm.spec.id,
                    "path": str(run.start_path or ""),
                },
            ),
        )

    async def run_ended(
        self, *, exit_code: int, oom_killed: bool, error: str, at_ns: int | None = None
    ) -> Container:
        """The run is over and its log stored; decides about a restart in the same transaction.

        Args:
            exit_code: Of the first process.
            oom_killed: Whether it was killed for memory.
            error: What went wrong, if it was not the process.
            at_ns: When it ended, if the guest has told.
        """
        self._parts.registry.clear_condition(self._container_id)
        return await self._persist(
            lambda before: rules.ended(
                before,
                exit_code=exit_code,
                at_ns=at_ns or before.finished_at_ns or time.time_ns(),
                oom_killed=oom_killed,
                error=error,
                restarting=should_restart(
                    before.config.restart_policy,
                    exit_code=exit_code,
                    restart_count=before.restart_count,
                    stopped_by_user=before.stopped_by_user,
                ),
            ),
            Happening("die", attributes=_end_attributes(exit_code, oom_killed, error)),
        )

    async def start_failed(self, error: SlipwayError, exit_code: int) -> Container:
        """A start came to nothing; one by policy counts as a run that failed."""

        def rule(before: Container) -> Container:
            failed = rules.start_failed(
                before, exit_code=exit_code, error=describe(error), at_ns=time.time_ns()
            )
            by_policy = before.restart_count > 0
            if by_policy and should_restart(
                before.config.restart_policy,
                exit_code=exit_code,
                restart_count=before.restart_count,
                stopped_by_user=before.stopped_by_user,
            ):
                return replace(
                    failed,
                    state=ContainerState.RESTARTING,
                    restart_count=before.restart_count + 1,
                )
            return failed

        return await self._persist(
            rule, Happening("die", attributes=_end_attributes(exit_code, False, error.message))
        )

    async def claim_restart(self) -> Container | None:
        """Start again by policy; None if somebody has decided otherwise meanwhile."""
        try:
            return await self._persist(
                lambda before: rules.begin_start(before, by_policy=True), Happening("restart")
            )
        except (AlreadyInState, Conflict, NotFound):
            return None

    async def restart_given_up(self) -> Container:
        """Somebody stopped the container while it waited for a restart."""
        return await self._persist(rules.restart_given_up, Happening("stop"))

    async def log_fault(self, error: SlipwayError | None) -> None:
        """The log store refuses (or works again); output waits in the guest meanwhile."""
        text = describe(error) if error is not None else ""
        self._set(lambda before: replace(before, log_fault=text))
        if error is not None:
            logger.error("Log of container %s waits: %s", self._container_id, error.message)
            await self._note("log-fault", {"error": error.message})

    async def _silence_changed(self, run: Run, since_ns: int | None) -> None:
        """A VM that the hypervisor holds says why; the reason goes with the silence."""
        held = run.vm.pause_reason if since_ns is not None else ""
        self._set(lambda before: replace(before, unresponsive_since_ns=since_ns, held=held))
        action = "responsive" if since_ns is None else "unresponsive"
        await self._note(action, {"error": held} if held else {}, vm_id=run.vm.spec.id)

    async def _backpressure_changed(self, since_ns: int | None) -> None:
        self._set(lambda before: replace(before, backpressure_since_ns=since_ns))

    async def _out_of_memory(self, count: int) -> None:
        await self._persist(
            lambda before: before, Happening("oom", attributes={"count": str(count)})
        )

    def _set(self, change: Callable[[Condition], Condition]) -> None:
        self._parts.registry.set_condition(self._container_id, change)

    async def _note(
        self, action: str, attributes: dict[str, str], *, vm_id: str | None = None
    ) -> None:
        """Write a condition into the journal, if it can be written just now."""
        subject = EventType.CONTAINER if vm_id is None else EventType.VM
        try:
            container = await self._parts.registry.find(self._container_id)
            await self._parts.events.note(
                subject,
                action,
                vm_id or container.id,
                vm_id or container.name,
                attributes=attributes | ({"container": container.id} if vm_id else {}),
            )
        except SlipwayError as error:  # the condition itself is shown all the same
            logger.warning("Event %s of %s: %s", action, self._container_id[:12], error.message)


def describe(error: SlipwayError) -> str:
    """Message and advice in one line, as a container's record keeps it."""
    return f"{error.message}. {error.advice}" if error.advice else error.message


def _end_attributes(exit_code: int, oom_killed: bool, error: str) -> dict[str, str]:
    attributes = {"exitCode": str(exit_code)}
    if oom_killed:
        attributes["oomKilled"] = "true"
    if error:
        attributes["error"] = error
    return attributes
