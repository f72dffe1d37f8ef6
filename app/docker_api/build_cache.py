"""POST /build/prune: `docker system prune` asks for it, whether there is a builder or not."""

from typing import Any

from fastapi import APIRouter

router = APIRouter(prefix="/build")


@router.post("/prune")
async def prune_build_cache() -> dict[str, Any]:
    """There is no cache of builds."""
    return {"CachesDeleted": None, "SpaceReclaimed": 0}
