"""POST /containers/{id}/update and /containers/prune."""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from app.core.errors import InvalidArgument
from app.docker_api.access import Initiator, ServicesOf
from app.docker_api.bodies import body_of
from app.docker_api.container_list import labels_match
from app.docker_api.create_body import HostConfigBody
from app.docker_api.create_config import (
    NANOS_PER_CPU,
    cpu_tuning,
    resource_warnings,
    restart_policy,
)
from app.docker_api.parameters import Filters, parse_filters
from app.docker_api.times import NS_PER_S
from app.domain.container import Container
from app.domain.container_config import ContainerConfig
from app.domain.restart import RestartPolicyName

router = APIRouter(prefix="/containers")

PRUNE_FILTERS = frozenset({"label", "label!", "until"})
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")


@router.post("/{reference}/update")
async def update_container(
    reference: str,
    services: ServicesOf,
    initiator: Initiator,
    body: Annotated[HostConfigBody, Depends(body_of(HostConfigBody))],
) -> dict[str, Any]:
    """Change its limits or its restart policy; what is absent or 0 stays as it is."""
    await services.limits.update(
        reference, lambda before: _updated(before, body), initiator=initiator
    )
    return {"Warnings": resource_warnings(body)}


def _updated(before: ContainerConfig, body: HostConfigBody) -> ContainerConfig:
    policy = before.restart_policy
    if body.restart_policy is not None and body.restart_policy.name:
        policy = restart_policy(body.restart_policy)
        if before.auto_remove and policy.name is not RestartPolicyName.NO:
            raise InvalidArgument(
                "Restart policy cannot be updated because AutoRemove is enabled for the container"
            )
    limit = body.pids_limit
    return replace(
        before,
        restart_policy=policy,
        memory_bytes=body.memory or before.memory_bytes,
        memory_swap_bytes=body.memory_swap or before.memory_swap_bytes,
        memory_reservation_bytes=body.memory_reservation or before.memory_reservation_bytes,
        cpus=body.nano_cpus / NANOS_PER_CPU if body.nano_cpus else before.cpus,
        cpu_tuning=cpu_tuning(body, before.cpu_tuning),
        pids_limit=max(limit, 0) if limit else before.pids_limit,
    )


@router.post("/prune")
async def prune_containers(
    services: ServicesOf, initiator: Initiator, filters: str = ""
) -> dict[str, Any]:
    """Remove those that don't run."""
    wanted = parse_filters(filters, PRUNE_FILTERS)
    is_old = older_than(wanted)

    def picks(container: Container) -> bool:
        return is_old(container.created_at_ns) and label_filters_match(
            wanted, container.config.labels
        )

    pruned = await services.upkeep.prune_containers(picks, initiator=initiator)
    return {"ContainersDeleted": list(pruned.ids) or None, "SpaceReclaimed": pruned.freed_bytes}


def label_filters_match(filters: Filters, labels: dict[str, str]) -> bool:
    """`label` must all fit, of `label!` none may."""
    if not labels_match(filters.get("label", ()), labels):
        return False
    return not any(labels_match((unwanted,), labels) for unwanted in filters.get("label!", ()))


def older_than(filters: Filters) -> Callable[[int], bool]:
    """The `until` filter: made before a moment, or so long ago (`24h`).

    Raises:
        InvalidArgument: It is neither.
    """
    values = filters.get("until", ())
    if len(values) > 1:
        raise InvalidArgument("more than one until filter specified")
    if not values:
        return lambda _: True
    limit_ns = _moment_ns(values[0])
    return lambda created_at_ns: created_at_ns < limit_ns


def _moment_ns(text: str) -> int:
    if text.replace(".", "", 1).isdecimal():
        return int(float(text) * NS_PER_S)
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise InvalidArgument(f"invalid filter 'until={text}'")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return time.time_ns() - int((hours * 3600 + minutes * 60 + seconds) * NS_PER_S)
