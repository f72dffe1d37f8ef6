"""Image references and digests by Docker's rules (distribution/reference). Pure values."""

import re
from dataclasses import dataclass
from typing import Self

from app.core.errors import CorruptData, InvalidArgument

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
OFFICIAL_PREFIX = "library/"
NAME_MAX_CHARS = 255  # distribution/reference, NameTotalLengthMax
SHORT_DIGEST_DIGITS = 12

_ALNUM = "[a-z0-9]+"
_PATH_COMPONENT = rf"{_ALNUM}(?:(?:\.|_|__|-+){_ALNUM})*"
_DOMAIN_LABEL = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[[a-fA-F0-9:]+\])"
_DOMAIN_RE = re.compile(rf"{_HOST}(?::[0-9]+)?", re.ASCII)
_PATH_RE = re.compile(rf"{_PATH_COMPONENT}(?:/{_PATH_COMPONENT})*")
_TAG_RE = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST_RE = re.compile(r"sha256:[a-f0-9]{64}")
_HEX64_RE = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A sha256 digest, the only algorithm Slipway stores.

    Attributes:
        hex: 64 lower-case hex digits.
    """

    hex: str

    @classmethod
    def parse(cls, text: object, *, what: str = "digest") -> Self:
        """Read `sha256:<64 hex>`.

        Raises:
            CorruptData: Another algorithm or shape; `what` names the place it was found.
        """
        if not isinstance(text, str) or _DIGEST_RE.fullmatch(text) is None:
            raise CorruptData(
                f"{what} {shown(text)} is not sha256: followed by 64 hex digits",
                advice="Slipway stores sha256 content only.",
            )
        return cls(text.removeprefix("sha256:"))

    @property
    def short(self) -> str:
        """The 12 digits that people see."""
        return self.hex[:SHORT_DIGEST_DIGITS]

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised image reference (distribution/reference, "normalized named").

    Attributes:
        domain: Registry host with optional port.
        path: Repository path within the registry, e.g. `library/busybox`.
        tag: None only beside a digest.
        digest: `sha256:<hex>` of a manifest, or None.
    """

    domain: str
    path: str
    tag: str | None = DEFAULT_TAG
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what a user typed: `[domain/]path[:tag][@digest]`; the tag defaults to `latest`.

        Raises:
            InvalidArgument: Not a reference; the message carries the offending text.
        """
        rest, at, digest = text.partition("@")
        if at and _DIGEST_RE.fullmatch(digest) is None:
            raise _invalid(f"{shown(text)}: the digest must be sha256: and 64 hex digits")
        colon = rest.rfind(":")
        tag: str | None = None
        if colon > rest.rfind("/"):
            rest, tag = rest[:colon], rest[colon + 1 :]
            if _TAG_RE.fullmatch(tag) is None:
                raise _invalid(f"{shown(text)}: the tag {shown(tag)} is not allowed")
        if _HEX64_RE.fullmatch(rest):
            raise InvalidArgument(
                f"invalid repository name ({rest}), cannot specify 64-byte hexadecimal strings"
            )
        domain, path = _split_domain(rest)
        _check_name(domain, path, text)
        return cls(domain, path, tag or (None if at else DEFAULT_TAG), digest if at else None)

    @property
    def name(self) -> str:
        """Domain and path."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as Docker shows it: `busybox`, `team/app`, `registry:5000/app`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(OFFICIAL_PREFIX)
        return short if "/" not in short else self.path

    @property
    def familiar(self) -> str:
        """The whole reference as Docker shows it."""
        return self.familiar_name + self._suffix

    @property
    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        return tag + (f"@{self.digest}" if self.digest is not None else "")

    def __str__(self) -> str:
        return self.name + self._suffix


def is_domain(text: str) -> bool:
    """Whether it can be a registry's host, with or without a port."""
    return _DOMAIN_RE.fullmatch(text) is not None


def shown(text: object) -> str:
    """Foreign text for a message: quoted, escaped, bounded."""
    shown = ascii(text)
    return shown if len(shown) <= 160 else shown[:157] + "..."


def _invalid(detail: str) -> InvalidArgument:
    return InvalidArgument(
        f"invalid reference format: {detail}",
        advice="A reference looks like busybox, busybox:1.36 or registry.example:5000/team/app:v1.",
    )


def _split_domain(name: str) -> tuple[str, str]:
    """Docker's rule for telling `host/path` from `user/repo` (reference.splitDockerDomain)."""
    first, slash, remainder = name.partition("/")
    is_domain = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not is_domain:
        domain, path = DEFAULT_DOMAIN, name
    else:
        domain, path = first, remainder
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = OFFICIAL_PREFIX + path
    return domain, path


def _check_name(domain: str, path: str, text: str) -> None:
    if path.lower() != path:
        raise _invalid(f"repository name ({shown(path)[1:-1]}) must be lowercase")
    if _PATH_RE.fullmatch(path) is None or _DOMAIN_RE.fullmatch(domain) is None:
        raise _invalid(shown(text))
    if len(domain) + 1 + len(path) > NAME_MAX_CHARS:
        raise _invalid(f"repository name must not be more than {NAME_MAX_CHARS} characters")
