"""What needs a registry: refused, since this release speaks with none."""

from fastapi import APIRouter

from app.core.errors import Unsupported

router = APIRouter()

ADVICE = "Bring images by `docker load` or `docker import`"


def pull_refusal(name: str) -> Unsupported:
    """Why an image is not pulled."""
    return Unsupported(
        f"{name} can't be pulled: this release does not speak with registries", advice=ADVICE
    )


@router.post("/images/{reference:path}/push")
async def push_image(reference: str) -> None:
    """Nothing is pushed."""
    raise Unsupported(
        f"{reference} can't be pushed: this release does not speak with registries",
        advice="Take images along by `docker save`",
    )


@router.get("/distribution/{reference:path}/json")
async def inspect_distribution(reference: str) -> None:
    """Nothing is looked up."""
    raise pull_refusal(reference)
