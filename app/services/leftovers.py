"""What an earlier engine has left: VMs that go on, records that are no longer true."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from app.core.errors import SlipwayError
from app.domain import container as rules
from app.domain.container import Container, ContainerState
from app.domain.restart import should_restart, should_start_with_engine
from app.domain.vm import VmEndReason
from app.hypervisor.port import Vm
from app.services.ending import EXIT_CODE_KILLED
from app.services.launch import CONTAINER_LABEL
from app.services.parts import EngineParts
from app.services.registry import Happening
from app.services.service_vm import SERVICE_LABEL
from app.services.templates import TEMPLATE_LABEL
from app.services.warm_vm import POOL_LABEL

VM_STOP_GRACE_S = 2.0
# Of VMs that run no container, or not yet; they end with their engine, however that ends.
ENGINES_OWN_LABELS = {POOL_LABEL, SERVICE_LABEL, TEMPLATE_LABEL}
GONE = "The VM was gone when the engine came back"

logger = logging.getLogger(__name__)


BeginLife = Callable[[Container, Vm | None], object]
"""Starts a container's life, with the VM that it has or without one."""


class Leftovers:
    """Brings records and VMs together, once, before the engine is ready.

    Args:
        parts: What lives work with.
        begin: Takes up a container that goes on or is started again.
        finish_stop: Goes on, in the background, with a stop that was cut short.
        remove_ended: Removes a container with `--rm`, or one whose removal was cut short.
    """

    def __init__(
        self,
        parts: EngineParts,
        *,
        begin: BeginLife,
        finish_stop: Callable[[Container], None],
        remove_ended: Callable[[str], Awaitable[None]],
    ) -> None:
        self._parts = parts
        self._begin = begin
        self._finish_stop = finish_stop
        self._remove_ended = remove_ended

    async def settle(self) -> None:
        """Adopt, end strays, repair, restart, remove.

        Strays are gone before a container without a VM is started: they may hold its disk.
        """
        containers = {container.id: container for container in await self._parts.registry.list()}
        without_vm = dict(containers)
        strays: list[Vm] = []
        for vm in await self._parts.hypervisor.adopt():
            container = without_vm.get(vm.spec.labels.get(CONTAINER_LABEL, ""))
            if container is None or not _may_have_vm(container):
                if not vm.spec.labels.keys() & ENGINES_OWN_LABELS:
                    logger.warning("VM %s belongs to nobody: ended", vm.spec.id)
                strays.append(vm)
                continue
            del without_vm[container.id]
            self._begin(await self._claim_policy_start(container), vm)
            if container.state is ContainerState.STOPPING:
                self._finish_stop(container)
        await asyncio.gather(*map(end_stray, strays))
        for container in without_vm.values():
            try:
                await self._repair(container)
            except SlipwayError as error:  # the others' records matter as much
                logger.warning("Container %s not repaired: %s", container.name, error.message)

    async def _repair(self, container: Container) -> None:
        """A container without a VM: what should have one is ended, what should run is started."""
        if container.state is ContainerState.REMOVING:
            await self._remove_ended(container.id)
            return
        if container.is_live:
            container = await self._parts.registry.update(
                container.id, end_without_vm, Happening("die", attributes={"error": GONE})
            )
        else:
            container = await self._claim_policy_start(container)
        if container.state is ContainerState.RESTARTING:
            self._begin(container, None)
        elif container.state is ContainerState.EXITED and container.config.auto_remove:
            await self._remove_ended(container.id)

    async def _claim_policy_start(self, container: Container) -> Container:
        """An ended container that its policy starts with the engine is to be restarted."""
        if container.state is ContainerState.EXITED and should_start_with_engine(
            container.config.restart_policy, stopped_by_user=container.stopped_by_user
        ):
            return await self._parts.registry.update(
                container.id, lambda before: replace(before, state=ContainerState.RESTARTING)
            )
        return container


def _may_have_vm(container: Container) -> bool:
    """Whether a VM of it is no stray: it lives, or its end was recorded before the VM was gone."""
    ended_states = {ContainerState.EXITED, ContainerState.RESTARTING}
    return container.is_live or container.state in ended_states


async def end_stray(vm: Vm) -> None:
    """End a VM that nobody needs; what fails is left to the next engine's start."""
    try:
        await vm.stop(VmEndReason.STOPPED, grace_s=VM_STOP_GRACE_S)
        await vm.discard()
    except SlipwayError as error:
        logger.warning("VM %s: %s", vm.spec.id, error.message)


def end_without_vm(before: Container) -> Container:
    """The record of a container that lived, and whose VM is gone."""
    exit_recorded = before.state is ContainerState.STOPPING and before.finished_at_ns is not None
    exit_code = before.exit_code if exit_recorded else EXIT_CODE_KILLED
    return rules.ended(
        before,
        exit_code=exit_code,
        at_ns=before.finished_at_ns or before.started_at_ns or before.created_at_ns,
        oom_killed=before.oom_killed,
        error="" if exit_recorded else GONE,
        restarting=should_restart(
            before.config.restart_policy,
            exit_code=exit_code,
            restart_count=before.restart_count,
            stopped_by_user=before.stopped_by_user,
        ),
    )
