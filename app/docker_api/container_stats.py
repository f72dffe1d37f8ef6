"""GET /containers/{id}/stats: Docker's JSON from what the agent counts in the guest."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from starlette.responses import JSONResponse, Response

from app.core.errors import NotFound
from app.docker_api.access import ServicesOf
from app.docker_api.container_view import runs
from app.docker_api.parameters import Flag
from app.docker_api.times import ZERO_TIME, iso_time
from app.domain.container import Container
from app.services.bundle import Services
from app.services.stats import ContainerSample

router = APIRouter(prefix="/containers")

READINGS_FOR_A_RATE = 2
SCRATCH_DEVICE = (254, 0)  # the numbers of a virtio disk


@router.get("/{reference}/stats")
async def container_stats(
    reference: str,
    services: ServicesOf,
    stream: Flag = True,
    one_shot: Annotated[Flag, Query(alias="one-shot")] = False,
) -> Response:
    """Each second, or once: then with the reading before it, unless `one-shot` needs none."""
    container = await services.containers.get(reference)
    if stream:
        return StreamingResponse(_each_second(services, container), media_type="application/json")
    if not runs(container):
        return JSONResponse(stats_view(container, None, None, cpus=0))
    async with services.stats.watch():
        await services.stats.next_round()
        if not one_shot and len(services.stats.history(container.id)) < READINGS_FOR_A_RATE:
            await services.stats.next_round()
        return JSONResponse(_now(services, container))


async def _each_second(services: Services, container: Container) -> AsyncIterator[bytes]:
    """Until the container is gone; one that does not run has empty numbers."""
    yield b""
    async with services.stats.watch():
        while True:
            await services.stats.next_round()
            yield json.dumps(_now(services, container)).encode() + b"\n"
            try:
                container = await services.containers.get(container.id)
            except NotFound:
                return


def _now(services: Services, container: Container) -> dict[str, Any]:
    history = services.stats.history(container.id)
    newest = history[-1] if history else None
    before = history[-2] if len(history) > 1 else None
    return stats_view(container, newest, before, cpus=services.limits.cpus_of(container))


def stats_view(
    container: Container,
    newest: ContainerSample | None,
    before: ContainerSample | None,
    *,
    cpus: int,
) -> dict[str, Any]:
    """One reading with the one before it, as the CLI reckons the share of CPU from."""
    return {
        "read": iso_time(newest.time_ns if newest else None),
        "preread": iso_time(before.time_ns if before else None) if newest else ZERO_TIME,
        "pids_stats": {"current": newest.pids} if newest else {},
        "blkio_stats": _io(newest),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(newest, cpus),
        "precpu_stats": _cpu(before, cpus),
        "memory_stats": _memory(newest),
        "name": f"/{container.name}",
        "id": container.id,
    }


def _cpu(sample: ContainerSample | None, cpus: int) -> dict[str, Any]:
    throttling = {"periods": 0, "throttled_periods": 0, "throttled_time": 0}
    if sample is None:
        usage = {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}
        return {"cpu_usage": usage, "throttling_data": throttling}
    return {
        "cpu_usage": {
            "total_usage": sample.cpu_us * 1000,
            "usage_in_kernelmode": sample.cpu_system_us * 1000,
            "usage_in_usermode": sample.cpu_user_us * 1000,
        },
        # The time of all its CPUs: of the VM, not of the host.
        "system_cpu_usage": sample.time_ns * cpus,
        "online_cpus": cpus,
        "throttling_data": throttling,
    }


def _memory(sample: ContainerSample | None) -> dict[str, Any]:
    if sample is None:
        return {}
    return {
        "usage": sample.memory_bytes,
        "limit": sample.memory_limit_bytes or sample.guest_total_bytes,
        # All of the cache counts as inactive: that is what clients take off the usage.
        "stats": {
            "anon": sample.memory_anon_bytes,
            "file": sample.memory_file_bytes,
            "inactive_file": sample.memory_file_bytes,
            "active_file": 0,
        },
    }


def _io(sample: ContainerSample | None) -> dict[str, Any]:
    major, minor = SCRATCH_DEVICE
    moved: list[dict[str, Any]] = []
    if sample is not None:
        moved = [
            {"major": major, "minor": minor, "op": name, "value": count}
            for name, count in (("read", sample.io_read_bytes), ("write", sample.io_write_bytes))
        ]
    return {
        "io_service_bytes_recursive": moved,
        "io_serviced_recursive": None,
        "io_queue_recursive": None,
        "io_service_time_recursive": None,
        "io_wait_time_recursive": None,
        "io_merged_recursive": None,
        "io_time_recursive": None,
        "sectors_recursive": None,
    }
