"""What an endpoint is given besides its parameters: the use cases, and who asks."""

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from app.services.bundle import Services

UNKNOWN_CALLER = "docker"


def services_of(connection: HTTPConnection) -> Services:
    """The use cases."""
    services: Services = connection.app.state.services
    return services


def initiator_of(connection: HTTPConnection) -> str:
    """Who asks, for the journal: what the server knows of the other end of the connection."""
    extensions = connection.scope.get("extensions") or {}
    return str(extensions.get("slipway.caller", UNKNOWN_CALLER))


ServicesOf = Annotated[Services, Depends(services_of)]
Initiator = Annotated[str, Depends(initiator_of)]
