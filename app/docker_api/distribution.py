"""What needs a registry: push, login, and what a registry says of an image."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from app.docker_api.access import Initiator, ServicesOf
from app.docker_api.bodies import body_of
from app.docker_api.pulling import TransferResponse, draw_push, reference_of, wants_all_tags
from app.docker_api.registry_auth import AuthConfig, RegistryCredentials

router = APIRouter()


@router.post("/images/{reference:path}/push")
async def push_image(
    reference: str,
    services: ServicesOf,
    initiator: Initiator,
    credentials: RegistryCredentials,
    tag: str = "",
) -> Response:
    """Push one tag, or all that a repository has here."""
    transfer = await services.registries.push(
        reference_of(reference, tag),
        credentials=credentials,
        initiator=initiator,
        all_tags=wants_all_tags(reference, tag),
    )
    return TransferResponse(transfer, draw_push)


@router.get("/distribution/{reference:path}/json")
async def inspect_distribution(
    reference: str, services: ServicesOf, credentials: RegistryCredentials
) -> dict[str, Any]:
    """What its registry has by that name."""
    descriptor, platforms = await services.registries.inspect(reference, credentials=credentials)
    return {
        "Descriptor": descriptor.to_json(),
        "Platforms": [
            {"architecture": each.architecture, "os": each.os}
            | ({"variant": each.variant} if each.variant else {})
            for each in platforms
        ],
    }


@router.post("/auth")
async def login(
    services: ServicesOf, body: Annotated[AuthConfig, Depends(body_of(AuthConfig))]
) -> dict[str, str]:
    """Check credentials of a registry."""
    token = await services.registries.login(body.server_address, body.credentials())
    return {"Status": "Login Succeeded", "IdentityToken": token}
