"""Credentials as clients send them: `X-Registry-Auth`, and the body of a login."""

import base64
import binascii
import json
from typing import Annotated, Any

from fastapi import Depends, Request

from app.docker_api.bodies import DockerModel
from app.domain.registry import Credentials

HEADER = "x-registry-auth"
HEADER_MAX_CHARS = 64 * 1024


class AuthConfig(DockerModel):
    """Docker's AuthConfig."""

    username: str = ""
    password: str = ""
    auth: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server_address: str = ""

    def credentials(self) -> Credentials:
        """Who it names; `auth` holds name and password together in old clients."""
        username, password = self.username, self.password
        if not username and self.auth:
            username, _, password = _decoded(self.auth).decode("utf-8", "replace").partition(":")
        return Credentials(username, password, self.identity_token, self.registry_token)


def _decoded(text: str) -> bytes:
    """Either alphabet of base64, padded or not; nothing for what is none."""
    plain = text.strip().replace("+", "-").replace("/", "_").rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""


def credentials_of(request: Request) -> Credentials:
    """Who asks the registry; what can't be read is nobody, as with Docker."""
    text = request.headers.get(HEADER, "")
    if not text or len(text) > HEADER_MAX_CHARS:
        return Credentials()
    try:
        value: Any = json.loads(_decoded(text))
        return AuthConfig.model_validate(value).credentials() if value else Credentials()
    except ValueError:
        return Credentials()


RegistryCredentials = Annotated[Credentials, Depends(credentials_of)]
