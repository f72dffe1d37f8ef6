"""How registries are reached."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from app.core.errors import InvalidArgument
from app.domain.reference import DEFAULT_DOMAIN

DEFAULT_REGISTRY = "registry-1.docker.io"
LOOPBACK = ("127.0.0.0/8", "::1/128")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way to a registry.

    Attributes:
        base: URL without a path or a slash at its end.
        is_verified: Whether its certificate is checked.
        is_mirror: It stands in for docker.io, and is never given credentials.
    """

    base: str
    is_verified: bool = True
    is_mirror: bool = False

    @property
    def host(self) -> str:
        """Host with its port, as people write it."""
        return urlsplit(self.base).netloc


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """What an operator decides about registries.

    Attributes:
        mirrors: URLs of mirrors of docker.io, asked in order before it.
        insecure: `host`, `host:port` or networks (`10.0.0.0/8`) where a certificate isn't checked
            and plain HTTP is tried. Loopback addresses always are, as in Docker.
        ca: A PEM file of more authorities, or a directory in the form of Docker's `certs.d`
            (`<host:port>/*.crt`, and `*.cert` with `*.key` for the client).
        downloads: Layers of one pull that come at the same time.
        uploads: Likewise of a push.
        connect_s, idle_s: Deadlines for a connection, and for each wait for bytes.
        attempts: Tries in a row that bring nothing before an operation fails.
        pause_s: First pause between tries; it doubles.
        pause_max_s: The longest pause, whatever a registry asks for.
    """

    mirrors: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    ca: Path | None = None
    downloads: int = 3
    uploads: int = 5
    connect_s: float = 15.0
    idle_s: float = 60.0
    attempts: int = 5
    pause_s: float = 0.5
    pause_max_s: float = 60.0

    def endpoints(self, domain: str, *, is_push: bool = False) -> Sequence[Endpoint]:
        """Where a registry may be, in the order to try."""
        if domain == DEFAULT_DOMAIN:
            mirrors = [] if is_push else [self._mirror(url) for url in self.mirrors]
            return [*mirrors, Endpoint(f"https://{DEFAULT_REGISTRY}")]
        if self.is_insecure(domain):
            return [Endpoint(f"https://{domain}", is_verified=False), Endpoint(f"http://{domain}")]
        return [Endpoint(f"https://{domain}")]

    def _mirror(self, url: str) -> Endpoint:
        host = urlsplit(url).netloc
        return Endpoint(url.rstrip("/"), is_verified=not self.is_insecure(host), is_mirror=True)

    def is_insecure(self, domain: str) -> bool:
        """Whether a registry's identity isn't checked."""
        host = urlsplit(f"//{domain}").hostname or ""
        if domain in self.insecure or host in self.insecure or host == "localhost":
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in _networks((*LOOPBACK, *self.insecure)))


def _networks(texts: Sequence[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(text) for text in texts if "/" in text]


def parse_mirrors(text: str) -> tuple[str, ...]:
    """Read a list of URLs, with commas or spaces between.

    Raises:
        InvalidArgument: One is no URL of a host.
    """
    urls = tuple(text.replace(",", " ").split())
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
            raise InvalidArgument(
                f"invalid mirror: {url} is not the URL of a host",
                advice="A mirror looks like https://mirror.example.org",
            )
        if parts.username or parts.query or parts.fragment:
            raise InvalidArgument(f"invalid mirror: {url} has more than a host and a port")
    return urls


def parse_insecure(text: str) -> tuple[str, ...]:
    """Read a list of hosts and networks, with commas or spaces between.

    Raises:
        InvalidArgument: One is neither.
    """
    entries = tuple(text.replace(",", " ").split())
    for entry in entries:
        if "://" in entry:
            raise InvalidArgument(f"invalid insecure registry {entry}: leave the scheme out")
        try:
            _networks([entry])
        except ValueError as error:
            raise InvalidArgument(f"invalid insecure registry {entry}: {error}") from error
    return entries
