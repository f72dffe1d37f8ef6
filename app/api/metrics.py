"""/healthz for load balancers and /metrics for Prometheus (text exposition format 0.0.4)."""

from collections import Counter as Count
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from app.api.identity import Initiator, ServicesOf
from app.api.problems import respond
from app.core.errors import SlipwayError
from app.core.ids import short_id
from app.domain.container import ContainerState
from app.services.bundle import Services


class _ProblemRoute(APIRoute):
    """These two live outside the REST application and answer errors as it does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except SlipwayError as error:
                return respond(error)

        return answer


router = APIRouter(route_class=_ProblemRoute)


@router.get("/healthz", include_in_schema=False)
async def healthz(request: Request) -> Response:
    """200 while the engine can read its records; tells nothing else, so it needs no token."""
    services: Services = request.state.services
    await services.events.list(limit=1)
    return Response("ok\n", media_type="text/plain")


@router.get("/metrics", include_in_schema=False)
async def metrics(services: ServicesOf, _: Initiator) -> Response:
    """Gauges of the moment; needs a bearer token, since names of containers are in it."""
    registry = CollectorRegistry(auto_describe=False)
    await _host_gauges(registry, services)
    await _container_gauges(registry, services)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


async def _host_gauges(registry: CollectorRegistry, services: Services) -> None:
    host = await services.hosts.host()
    values = {
        "slipway_host_memory_total_bytes": ("Memory of the host.", host.memory_total_bytes),
        "slipway_host_memory_available_bytes": (
            "Memory that new work can take.",
            host.memory_available_bytes,
        ),
        "slipway_host_disk_free_bytes": (
            "Free space for the data directory.",
            host.disk_free_bytes,
        ),
        "slipway_images": ("Images in the store.", host.images_total),
        "slipway_engine_start_time_seconds": (
            "When the engine started, since the epoch.",
            host.started_at_ns / 1e9,
        ),
    }
    if host.pool is not None:
        values["slipway_pool_waiting"] = ("Warmed VMs that can be taken.", host.pool.waiting)
        values["slipway_pool_size"] = ("Warmed VMs that shall wait.", host.pool.size)
        values["slipway_pool_resident_bytes"] = (
            "PSS of the VMs that wait.",
            host.pool.resident_bytes,
        )
    for name, (help_text, value) in values.items():
        Gauge(name, help_text, registry=registry).set(value)
    info = Gauge(
        "slipway_info", "Versions.", ["version", "hypervisor", "accelerator"], registry=registry
    )
    info.labels(host.slipway_version, host.hypervisor, host.accelerator.name).set(1)


_SAMPLED = {
    "cpu_percent": ("cpu_percent", "100 is one CPU busy."),
    "memory_bytes": ("memory_bytes", "Of its cgroup."),
    "memory_file_bytes": ("page_cache_bytes", "Of its cgroup."),
    "guest_kernel_bytes": ("guest_kernel_bytes", "What its guest's kernel needs."),
    "host_resident_bytes": ("host_resident_bytes", "PSS of its VM."),
    "host_template_bytes": (
        "host_template_bytes",
        "Share of the template's memory in its VM's PSS.",
    ),
    "vmm_overhead_bytes": ("vmm_overhead_bytes", "PSS of its VM beyond what the guest uses."),
    "pids": ("pids", "Processes."),
}
"""Fields of a sample: the gauge's name after its prefix, and its help."""


async def _container_gauges(registry: CollectorRegistry, services: Services) -> None:
    containers = await services.containers.list()
    states = Gauge("slipway_containers", "Containers by state.", ["state"], registry=registry)
    counts = Count(container.state for container in containers)
    for state in ContainerState:
        states.labels(state.value).set(counts[state])
    labels = ["id", "name"]
    gauges = {
        field: Gauge(f"slipway_container_{name}", help_text, labels, registry=registry)
        for field, (name, help_text) in _SAMPLED.items()
    }
    restarts = Gauge(
        "slipway_container_restarts", "By policy since the last start.", labels, registry=registry
    )
    for container in containers:
        key = (short_id(container.id), container.name)
        restarts.labels(*key).set(container.restart_count)
        sample = services.stats.latest(container.id)
        if sample is not None:
            for field, gauge in gauges.items():
                value = getattr(sample, field)
                if value is not None:  # not measured yet: no value is better than a wrong one
                    gauge.labels(*key).set(value)
