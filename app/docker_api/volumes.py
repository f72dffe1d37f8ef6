"""/volumes: none yet, and none can be made."""

from typing import Any

from fastapi import APIRouter

from app.core.errors import NotFound, Unsupported
from app.docker_api.parameters import parse_filters

router = APIRouter(prefix="/volumes")

FILTERS = frozenset({"dangling", "driver", "label", "name"})
PRUNE_FILTERS = frozenset({"all", "label", "label!"})


@router.get("")
async def list_volumes(filters: str = "") -> dict[str, Any]:
    """None."""
    parse_filters(filters, FILTERS)
    return {"Volumes": [], "Warnings": None}


@router.post("/create")
async def create_volume() -> None:
    """None can be made."""
    raise Unsupported(
        "Volumes are not available in this release",
        advice="Use tmpfs, or copy files by `docker cp`",
    )


@router.post("/prune")
async def prune_volumes(filters: str = "") -> dict[str, Any]:
    """None can go."""
    parse_filters(filters, PRUNE_FILTERS)
    return {"VolumesDeleted": None, "SpaceReclaimed": 0}


@router.get("/{name}")
async def inspect_volume(name: str) -> None:
    """There is none."""
    raise NotFound(f"get {name}: no such volume")


@router.delete("/{name}")
async def remove_volume(name: str) -> None:
    """There is none."""
    raise NotFound(f"get {name}: no such volume")
