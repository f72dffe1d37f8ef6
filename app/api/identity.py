"""Who asks: bearer tokens only. A browser's session does not open this door, so no CSRF can."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.core.errors import Unauthenticated
from app.services.bundle import Services

_bearer = HTTPBearer(auto_error=False, description="A token made by `slipway token create NAME`.")


async def services_of(request: Request) -> Services:
    """The use cases, from the lifespan's state."""  # async: FastAPI sends others to a thread
    services: Services = request.state.services
    return services


ServicesOf = Annotated[Services, Depends(services_of)]


async def initiator_of(
    services: ServicesOf,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str:
    """The token's name, for the journal.

    Raises:
        Unauthenticated: No token, or none that we know.
    """
    if credentials is None:
        raise Unauthenticated(
            "No token was sent",
            advice="Send `Authorization: Bearer TOKEN`; make one by `slipway token create NAME`.",
        )
    identity = await services.accounts.authenticate_token(credentials.credentials)
    if identity is None:
        raise Unauthenticated(
            "The token is not known, or was revoked",
            advice="Make one by `slipway token create NAME`.",
        )
    return f"token:{identity.name}"


Initiator = Annotated[str, Depends(initiator_of)]
