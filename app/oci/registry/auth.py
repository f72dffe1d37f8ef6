"""Says who asks: Basic, or Bearer with tokens of a token server, kept by scope.

Source: distribution, docs/spec/auth/token.md and oauth.md.
"""

import asyncio
import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2

from app.core.errors import CorruptData
from app.domain.registry import Credentials, RegistryDenied, RegistryFailed
from app.oci.config import parse_object
from app.oci.registry.challenge import Challenge, parse_challenges

CLIENT_ID = "slipway"
LIFE_DEFAULT_S = 60  # a token without `expires_in`
LIFE_MARGIN_S = 10
ANSWER_MAX_BYTES = 1024 * 1024
NO_CREDENTIALS = "no basic auth credentials"


@dataclass
class _Token:
    value: str
    good_until: float


@dataclass
class Authority:
    """The credentials of one operation at one registry, with the tokens they have brought.

    Attributes:
        client: Asks token servers.
        credentials: None where nobody is to be named (mirrors).
        identity_token: What a token server gave to be kept in place of the password.
    """

    client: httpx2.AsyncClient
    credentials: Credentials
    allows_plain: bool = False
    identity_token: str = ""
    _challenge: Challenge | None = None
    _tokens: dict[str, _Token] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def header(self, scopes: Sequence[str]) -> str | None:
        """The header for a request, as far as anything is known yet."""
        if self.credentials.registry_token:
            return f"Bearer {self.credentials.registry_token}"
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            return self._basic()
        token = self._tokens.get(_key(scopes))
        if token is None or time.monotonic() >= token.good_until:
            return None
        return f"Bearer {token.value}"

    async def answer(
        self, response: httpx2.Response, scopes: Sequence[str], sent: str | None
    ) -> str | None:
        """A better header after a 401; None if there is none.

        Args:
            response: The refusal.
            scopes: What the request needs.
            sent: The header that was refused.

        Raises:
            RegistryFailed: The token server doesn't answer sensibly.
            RegistryDenied: It refuses the credentials; or a password is asked for and none is
                there.
        """
        challenges = parse_challenges(response.headers.get_list("www-authenticate"))
        chosen = next((each for each in challenges if each.scheme == "bearer"), None)
        chosen = chosen or next((each for each in challenges if each.scheme == "basic"), None)
        if chosen is None or self.credentials.registry_token:
            return None
        async with self._lock:
            header = self.header(scopes)
            if header is not None and header != sent:
                return header  # somebody else has asked meanwhile
            self._challenge = chosen
            if chosen.scheme == "basic":
                header = self._basic()
                if header is None:
                    raise RegistryDenied(NO_CREDENTIALS)
                return header if header != sent else None
            token = await self._fetch(chosen, scopes)
            self._tokens[_key(scopes)] = token
            return f"Bearer {token.value}"

    def _basic(self) -> str | None:
        if not self.credentials.username:
            return None
        pair = f"{self.credentials.username}:{self.credentials.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    async def _fetch(self, challenge: Challenge, scopes: Sequence[str]) -> _Token:
        realm = challenge.parameters.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme not in ({"https", "http"} if self.allows_plain else {"https"}):
            raise RegistryFailed(f"the registry names a token server that can't be used: {realm!r}")
        wanted = list(scopes) or challenge.parameters.get("scope", "").split()
        request = self._token_request(realm, challenge.parameters.get("service", ""), wanted)
        try:
            async with asyncio.timeout(60):
                response = await self.client.send(request, stream=True)
                try:
                    body = await bounded_body(response, ANSWER_MAX_BYTES)
                finally:
                    await response.aclose()
        except (httpx2.HTTPError, TimeoutError) as error:
            raise RegistryFailed(
                f"failed to fetch a token: {realm}: {error or 'no answer in time'}"
            ) from error
        return self._read(response, body, realm)

    def _token_request(self, realm: str, service: str, scopes: list[str]) -> httpx2.Request:
        if self.credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": self.credentials.identity_token,
                "service": service,
                "client_id": CLIENT_ID,
                "scope": " ".join(scopes),
            }
            return self.client.build_request("POST", realm, data=form)
        query: list[tuple[str, str | int | float | bool | None]] = []
        query += [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes]
        headers = {}
        if (basic := self._basic()) is not None:
            query += [("account", self.credentials.username), ("client_id", CLIENT_ID)]
            query += [("offline_token", "true")] if not scopes else []
            headers["Authorization"] = basic
        url = httpx2.URL(realm).copy_merge_params(httpx2.QueryParams(query))
        return self.client.build_request("GET", url, headers=headers)

    def _read(self, response: httpx2.Response, body: bytes, realm: str) -> _Token:
        if response.status_code in {401, 403}:
            raise RegistryDenied("unauthorized: incorrect username or password")
        if response.status_code != 200:
            raise RegistryFailed(
                f"failed to fetch a token: {realm} answered {response.status_code}",
                is_definite=True,
            )
        try:
            answer = parse_object(body, what="the token server's answer")
        except CorruptData as error:
            raise RegistryFailed(error.message, is_definite=True) from error
        value = answer.get("token") or answer.get("access_token")
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise RegistryFailed(f"{realm} gave no token", is_definite=True)
        refresh = answer.get("refresh_token")
        self.identity_token = refresh if isinstance(refresh, str) else self.identity_token
        return _Token(value, time.monotonic() + _life_s(answer) - LIFE_MARGIN_S)


def _life_s(answer: dict[str, Any]) -> float:
    life = answer.get("expires_in")
    is_number = isinstance(life, int | float) and not isinstance(life, bool)
    return max(float(life), LIFE_DEFAULT_S) if life is not None and is_number else LIFE_DEFAULT_S


def _key(scopes: Sequence[str]) -> str:
    return " ".join(sorted(scopes))


async def bounded_body(response: httpx2.Response, limit_bytes: int) -> bytes:
    """An answer's body of a bounded size.

    Raises:
        RegistryFailed: It is larger.
    """
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit_bytes:
            raise RegistryFailed(
                f"{response.url}: the answer is larger than {limit_bytes:,} bytes",
                is_definite=True,
            )
    return bytes(body)
