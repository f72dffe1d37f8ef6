"""Runs health checks: one task for each running container that has one."""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass

from app.core.errors import NotFound, SlipwayError
from app.domain.container import Container, ContainerState
from app.domain.exec import ExecConfig
from app.domain.health import (
    DEFAULT_TIMEOUT_NS,
    OUTPUT_LIMIT_BYTES,
    Health,
    HealthStatus,
    Probe,
    after_probe,
    after_stop,
    effective_check,
    next_interval_ns,
    probe_command,
)
from app.domain.image import Healthcheck
from app.oci.store import ImageStore
from app.services.exec import ExecEnd, ExecService
from app.services.feed import ChangeFeed
from app.services.registry import ContainerRegistry, Happening

NS_PER_S = 1_000_000_000
RETRY_DELAY_S = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Check:
    """What to run for one container."""

    command: tuple[str, ...]
    settings: Healthcheck


@dataclass(frozen=True)
class _Watch:
    """The task that probes one run of a container."""

    started_at_ns: int | None
    task: asyncio.Task[None]


class HealthService:
    """Probes running containers and remembers what it found in the registry."""

    def __init__(
        self,
        registry: ContainerRegistry,
        images: ImageStore,
        exec_service: ExecService,
        feed: ChangeFeed,
    ) -> None:
        self._registry = registry
        self._images = images
        self._exec = exec_service
        self._feed = feed
        self._watches: dict[str, _Watch] = {}

    async def run(self) -> None:
        """Follow the containers for ever; cancelled at the engine's end."""
        async with self._feed.subscribe() as changes, asyncio.TaskGroup() as group:
            for container in await self._list():
                self._look_at(container, group)
            while True:
                for container_id in (await changes.next()).containers:
                    await self._look_again(container_id, group)

    async def _list(self) -> list[Container]:
        while True:
            try:
                return list(await self._registry.list())
            except SlipwayError as error:
                logger.warning("Health checks wait: %s", error.message)
                await asyncio.sleep(RETRY_DELAY_S)

    async def _look_again(self, container_id: str, group: asyncio.TaskGroup) -> None:
        try:
            container = await self._registry.find(container_id)
        except NotFound:
            self._end_watch(container_id)
        except SlipwayError as error:
            logger.warning("Health of container %s: %s", container_id[:12], error.message)
        else:
            self._look_at(container, group)

    def _look_at(self, container: Container, group: asyncio.TaskGroup) -> None:
        """Begin or end its watch, as its state wants."""
        watch = self._watches.get(container.id)
        if watch is not None and watch.started_at_ns != container.started_at_ns:
            self._end_watch(container.id)  # of a run that has ended meanwhile
            watch = None
        if container.state is ContainerState.RUNNING:
            if watch is None and (check := self._check_of(container)) is not None:
                probes = container.health.probes if container.health is not None else ()
                self._registry.set_health(container.id, Health(probes=probes))
                task = group.create_task(self._watch(container, check))
                self._watches[container.id] = _Watch(container.started_at_ns, task)
        elif watch is not None:
            self._end_watch(container.id)
            if container.health is not None and container.state is not ContainerState.PAUSED:
                self._registry.set_health(container.id, after_stop(container.health))

    def _end_watch(self, container_id: str) -> None:
        watch = self._watches.pop(container_id, None)
        if watch is not None:
            watch.task.cancel()

    def _check_of(self, container: Container) -> _Check | None:
        try:
            image = self._images.get(container.image_id).config
        except SlipwayError:
            return None
        settings = effective_check(container.config.healthcheck, image.healthcheck)
        command = probe_command(settings, image.shell)
        return None if command is None or settings is None else _Check(command, settings)

    async def _watch(self, container: Container, check: _Check) -> None:
        """Probe until cancelled; a defect of ours must not end the others' watches."""
        try:
            await self._probe_for_ever(container, check)
        except Exception:
            logger.exception("Health checks of container %s ended", container.name)

    async def _probe_for_ever(self, container: Container, check: _Check) -> None:
        started_at_ns = container.started_at_ns or time.time_ns()
        health = self._registry.health(container.id) or Health()
        while True:
            running_ns = time.time_ns() - started_at_ns
            interval_ns = next_interval_ns(check.settings, health, running_ns=running_ns)
            await asyncio.sleep(interval_ns / NS_PER_S)
            running_ns = time.time_ns() - started_at_ns
            probe = await self._probe(container, check)
            before = health
            health = after_probe(health, probe, check.settings, running_ns=running_ns)
            self._registry.set_health(container.id, health)
            if health.status is not before.status:
                await self._tell(container, health.status)

    async def _tell(self, container: Container, status: HealthStatus) -> None:
        with contextlib.suppress(SlipwayError):  # the status is shown all the same
            await self._registry.note(container, Happening(f"health_status: {status}"))

    async def _probe(self, container: Container, check: _Check) -> Probe:
        timeout_ns = check.settings.timeout_ns or DEFAULT_TIMEOUT_NS
        began_ns = time.time_ns()
        output = bytearray()
        try:
            async with asyncio.timeout(timeout_ns / NS_PER_S):
                exit_code = await self._run(container, check, output)
        except TimeoutError:
            text = f"Health check exceeded timeout ({timeout_ns / NS_PER_S:g}s)"
            return Probe(began_ns, time.time_ns(), -1, text)
        except SlipwayError as error:
            return Probe(began_ns, time.time_ns(), -1, error.message)
        text = bytes(output[:OUTPUT_LIMIT_BYTES]).decode("utf-8", "replace")
        return Probe(began_ns, time.time_ns(), exit_code, text)

    async def _run(self, container: Container, check: _Check, output: bytearray) -> int:
        """Run the command; what it writes beyond the limit is taken and dropped."""
        async with self._exec.exec(container.id, ExecConfig(check.command)) as items:
            async for item in items:
                if isinstance(item, ExecEnd):
                    return item.exit_code
                if len(output) < OUTPUT_LIMIT_BYTES:
                    output += item.data
        return -1
