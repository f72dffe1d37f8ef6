"""What Docker has and this engine has not: answers as of a Docker where it is switched off."""

from fastapi import APIRouter

from app.core.errors import NotFound, Unavailable, Unsupported

router = APIRouter()

NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
    "this node to swarm and try again."
)
NO_SWARM = "This node is not part of a swarm"
BUILDKIT = (
    "This engine has no BuildKit inside. Set DOCKER_BUILDKIT=0 to build by its own builder, or run "
    "BuildKit in a container: docker buildx create --driver docker-container --use"
)

_MANAGED = ("nodes", "services", "tasks", "secrets", "configs")
_ANY = ["GET", "POST", "DELETE"]


async def no_manager() -> None:
    """Everything of a Swarm's manager."""
    raise Unavailable(NO_MANAGER)


for kind in _MANAGED:
    router.add_api_route(f"/{kind}", no_manager, methods=_ANY)
    router.add_api_route(f"/{kind}/{{rest:path}}", no_manager, methods=_ANY)
router.add_api_route("/swarm", no_manager, methods=["GET"])
router.add_api_route("/volumes/{name}", no_manager, methods=["PUT"])  # of a cluster's volumes
router.add_api_route("/swarm/unlockkey", no_manager, methods=["GET"])
router.add_api_route("/swarm/update", no_manager, methods=["POST"])


@router.post("/swarm/leave")
async def leave_swarm() -> None:
    """There is none to leave."""
    raise Unavailable(NO_SWARM)


@router.post("/swarm/init")
@router.post("/swarm/join")
@router.post("/swarm/unlock")
async def no_swarm() -> None:
    """There is none to make."""
    raise Unsupported("This engine has no Swarm mode")


@router.get("/plugins")
async def list_plugins() -> list[None]:
    """None."""
    return []


@router.get("/plugins/privileges")
@router.post("/plugins/pull")
@router.post("/plugins/create")
async def no_plugins() -> None:
    """None can be installed."""
    raise Unsupported("This engine takes no plugins")


@router.get("/plugins/{name:path}/json")
@router.post("/plugins/{name:path}/enable")
@router.post("/plugins/{name:path}/disable")
@router.post("/plugins/{name:path}/upgrade")
@router.post("/plugins/{name:path}/push")
@router.post("/plugins/{name:path}/set")
@router.delete("/plugins/{name:path}")
async def no_plugin(name: str) -> None:
    """None is installed."""
    raise NotFound(f'plugin "{name}" not found')


@router.post("/session")
@router.post("/grpc")
async def no_buildkit() -> None:
    """What buildx asks for."""
    raise Unsupported(BUILDKIT)
