"""HTTP with one registry: authorisation, redirects, retries, deadlines."""

import asyncio
import ipaddress
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Self

import httpx2

from app import __version__
from app.domain.registry import Credentials, RegistryDenied, RegistryFailed
from app.oci.registry.auth import Authority, bounded_body
from app.oci.registry.options import Endpoint, RegistryOptions
from app.oci.registry.refusals import refusal
from app.oci.registry.trust import make_context

REDIRECTS_MAX = 5
REFUSAL_MAX_BYTES = 64 * 1024
PASSING = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

Body = Callable[[], AsyncIterator[bytes]]


@dataclass(frozen=True)
class Ask:
    """One request.

    Attributes:
        target: Path below the registry, or a whole URL that the registry has given.
        scopes: What a token must allow.
        body: Bytes, or what begins a stream of them anew for each try.
        expected: Statuses that are answers, not refusals.
        is_retried: Whether a refusal that may pass is asked again.
    """

    method: str
    target: str
    scopes: tuple[str, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Body | None = None
    expected: frozenset[int] = frozenset({200})
    is_retried: bool = True


class Transport:
    """Connections to one endpoint of a registry, for one operation."""

    def __init__(
        self,
        endpoint: Endpoint,
        client: httpx2.AsyncClient,
        authority: Authority,
        options: RegistryOptions,
    ) -> None:
        self.endpoint = endpoint
        self.authority = authority
        self.options = options
        self._client = client
        self._base = httpx2.URL(endpoint.base)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, endpoint: Endpoint, credentials: Credentials, options: RegistryOptions
    ) -> AsyncIterator[Self]:
        """Make one; leaving it closes its connections."""
        context = await asyncio.to_thread(make_context, endpoint, options.ca)
        timeout = httpx2.Timeout(options.idle_s, connect=options.connect_s)
        async with httpx2.AsyncClient(
            verify=context,
            timeout=timeout,
            trust_env=not _is_local(endpoint),  # proxies; never for this machine, as Go
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=options.downloads + options.uploads + 2),
            headers={"User-Agent": f"slipway/{__version__}", "Accept-Encoding": "identity"},
        ) as client:
            known = Credentials() if endpoint.is_mirror else credentials
            is_plain = not endpoint.base.startswith("https:") or not endpoint.is_verified
            yield cls(endpoint, client, Authority(client, known, allows_plain=is_plain), options)

    @asynccontextmanager
    async def ask(self, ask: Ask) -> AsyncIterator[httpx2.Response]:
        """Send, and give an expected answer with its body unread.

        Raises:
            RegistryFailed: No answer, or a refusal that doesn't pass.
            RegistryLacks, RegistryDenied: The registry's own refusal.
        """
        async with AsyncExitStack() as stack:
            response = await self._answer(ask)
            stack.push_async_callback(response.aclose)
            yield response

    async def fetch(self, ask: Ask, limit_bytes: int) -> tuple[httpx2.Response, bytes]:
        """Send, and give the answer with its body, which must be small.

        Raises:
            RegistryFailed: As `ask`; or it is too large, or cut short again and again.
        """
        pause = Pause(self.options)
        while True:
            try:
                async with self.ask(ask) as response:
                    return response, await bounded_body(response, limit_bytes)
            except httpx2.HTTPError as error:
                if not ask.is_retried or not await pause.wait():
                    raise unreachable(ask.method, self.endpoint, error) from error

    async def _answer(self, ask: Ask) -> httpx2.Response:
        pause = Pause(self.options)
        while True:
            response = await self._once(ask)
            if response.status_code in ask.expected:
                return response
            try:
                is_passing = response.status_code in PASSING and ask.is_retried
                if not is_passing or not await pause.wait(_asked_for_s(response)):
                    raise await self._refusal(ask, response)
            finally:
                await response.aclose()

    async def _refusal(self, ask: Ask, response: httpx2.Response) -> Exception:
        try:
            body = await bounded_body(response, REFUSAL_MAX_BYTES)
        except (httpx2.HTTPError, RegistryFailed):
            body = b""
        return refusal(ask.method, str(response.url), response.status_code, body)

    async def _once(self, ask: Ask) -> httpx2.Response:
        """One try: with redirects followed, and authorised if asked."""
        url = self._base.join(ask.target)
        header = self.authority.header(ask.scopes)
        was_authorised = False
        for _ in range(REDIRECTS_MAX + 2):
            response = await self._send(ask, url, header if self._is_own(url) else None)
            if response.status_code == 401 and self._is_own(url) and not was_authorised:
                was_authorised = True
                better = await self._authorised(ask, url, response, header)
                if better is None:
                    return response
                header = better
                continue
            location = response.headers.get("location", "")
            if response.status_code not in _REDIRECTS or not location:
                return response
            await response.aclose()
            url = self._follow(url, location)
        raise RegistryFailed(f"{self.endpoint.base}: too many redirects", is_definite=True)

    async def _authorised(
        self, ask: Ask, url: httpx2.URL, response: httpx2.Response, sent: str | None
    ) -> str | None:
        """A better header after a 401, with the answer closed; None if there is none."""
        try:
            better = await self.authority.answer(response, ask.scopes, sent)
        except BaseException as error:
            await response.aclose()
            if not isinstance(error, RegistryDenied):
                raise
            raise RegistryDenied(
                f'{ask.method.capitalize()} "{url}": {error.message}', said=error.message
            ) from error
        if better is not None:
            await response.aclose()
        return better

    def _follow(self, url: httpx2.URL, location: str) -> httpx2.URL:
        try:
            target = url.join(location)
        except httpx2.InvalidURL as error:
            raise RegistryFailed(f"{url}: redirects to nowhere", is_definite=True) from error
        allowed = (
            {"https"} if url.scheme == "https" and self.endpoint.is_verified else {"https", "http"}
        )
        if target.scheme not in allowed or not target.host:
            raise RegistryFailed(
                f"{url}: refused to follow a redirect to {target.scheme}://{target.host}",
                is_definite=True,
            )
        return target

    async def _send(self, ask: Ask, url: httpx2.URL, header: str | None) -> httpx2.Response:
        headers = dict(ask.headers)
        if header is not None:
            headers["Authorization"] = header
        body = ask.body() if callable(ask.body) else ask.body
        request = self._client.build_request(ask.method, url, headers=headers, content=body)
        try:
            return await self._client.send(request, stream=True)
        except (httpx2.HTTPError, OSError) as error:
            raise unreachable(ask.method, self.endpoint, error, str(url)) from error

    def absolute(self, asked: str, location: str) -> httpx2.URL:
        """A place that an answer names, as a whole URL."""
        return self._follow(httpx2.URL(asked), location)

    def _is_own(self, url: httpx2.URL) -> bool:
        """Whether a URL is the registry itself, which may hear who asks."""
        return (url.scheme, url.netloc) == (self._base.scheme, self._base.netloc)


class Pause:
    """Waits between tries: longer each time, and no oftener than the options say."""

    def __init__(self, options: RegistryOptions) -> None:
        self._options = options
        self._tries = 1

    def reset(self) -> None:
        """Something was brought: begin to count anew."""
        self._tries = 0

    async def wait(self, asked_for_s: float | None = None) -> bool:
        """Wait before another try; False if there have been enough.

        Args:
            asked_for_s: What the registry asks for; bounded.
        """
        if self._tries >= self._options.attempts:
            return False
        own_s = self._options.pause_s * 2 ** (self._tries - 1) * random.uniform(0.75, 1.25)  # noqa: S311
        self._tries += 1
        wanted_s = own_s if asked_for_s is None else asked_for_s
        await asyncio.sleep(min(wanted_s, self._options.pause_max_s))
        return True


def unreachable(method: str, endpoint: Endpoint, error: Exception, url: str = "") -> RegistryFailed:
    """No answer came, or not all of it."""
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx2.TimeoutException):
        reason = f"no answer in time ({reason})"
    return RegistryFailed(f'{method.capitalize()} "{url or endpoint.base}": {reason}')


def _asked_for_s(response: httpx2.Response) -> float | None:
    """`Retry-After`: seconds or a date."""
    text = response.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _is_local(endpoint: Endpoint) -> bool:
    host = httpx2.URL(endpoint.base).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
