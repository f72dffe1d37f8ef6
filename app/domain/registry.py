"""What is said to and heard from registries: credentials, platforms, progress, refusals. Values."""

from dataclasses import dataclass, field
from enum import StrEnum

from app.core.errors import InvalidArgument, NotFound, PermissionDenied, Unavailable
from app.domain.reference import Digest, Reference, shown


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks a registry; all empty for nobody.

    Attributes:
        username, password: For Basic, and for a token server.
        identity_token: A refresh token, in place of the password.
        registry_token: A bearer token for the registry itself.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether nobody is named."""
        return not (self.username or self.identity_token or self.registry_token)


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on, in Go's words."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str, *, default_architecture: str) -> "Platform":
        """Read `os`, `architecture`, `os/architecture` or `os/architecture/variant`.

        Raises:
            InvalidArgument: It is none of these.
        """
        parts = text.lower().split("/")
        if len(parts) > 3 or not all(part.replace("_", "").isalnum() for part in parts):
            raise InvalidArgument(f"{shown(text)}: platform specifier does not fit <os>|<arch>|…")
        if len(parts) == 1:
            if parts[0] in _SYSTEMS:
                return cls(parts[0], default_architecture)
            return cls("linux", *_architecture(parts[0], ""))
        return cls(parts[0], *_architecture(parts[1], parts[2] if len(parts) == 3 else ""))

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


_SYSTEMS = frozenset({"linux", "windows", "darwin", "freebsd"})
_SPELLINGS = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "i386": ("386", ""),
}


def _architecture(name: str, variant: str) -> tuple[str, str]:
    spelt, usual = _SPELLINGS.get(name, (name, ""))
    variant = variant or usual
    if (spelt, variant) in {("arm64", "v8"), ("amd64", "v1")}:
        variant = ""
    return spelt, variant


class LayerStage(StrEnum):
    """What is being done with one layer of a pull or push; in Docker's words."""

    PULLING = "Pulling fs layer"
    WAITING = "Waiting"
    DOWNLOADING = "Downloading"
    VERIFYING = "Verifying Checksum"
    DOWNLOADED = "Download complete"
    EXTRACTING = "Extracting"
    PULLED = "Pull complete"
    EXISTS = "Already exists"
    PREPARING = "Preparing"
    PUSHING = "Pushing"
    PUSHED = "Pushed"
    IN_REGISTRY = "Layer already exists"
    MOUNTED = "Mounted from"


@dataclass(frozen=True, slots=True)
class LayerProgress:
    """A step of one layer.

    Attributes:
        layer: Its short digest.
        done_bytes, total_bytes: Of stages that take a while; else 0.
        source: The repository that it was mounted from.
    """

    layer: str
    stage: LayerStage
    done_bytes: int = 0
    total_bytes: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True)
class TransferStarted:
    """The registry has answered: layers come next.

    Attributes:
        reference: What is pulled or pushed, with its tag or digest.
    """

    reference: Reference


@dataclass(frozen=True, slots=True)
class TransferEnded:
    """All is there.

    Attributes:
        digest: Of what the registry names by the reference: a manifest, or an index of them.
        size_bytes: Of that document.
        is_news: Whether anything has changed here (a pull).
    """

    reference: Reference
    digest: Digest
    size_bytes: int
    is_news: bool


Transfer = TransferStarted | LayerProgress | TransferEnded


class RegistryFailed(Unavailable):
    """A registry can't be reached, or answers nonsense; the text is as Docker's where it has one.

    Attributes:
        is_definite: It was the registry that said so, not the way to it.
    """

    code = "registry_failed"

    def __init__(self, message: str, *, is_definite: bool = False, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.is_definite = is_definite


class RegistryLacks(NotFound):
    """The registry has no such repository, tag or platform, or says so to whoever asks."""


class RegistryDenied(PermissionDenied):
    """The registry knows who asks, and refuses.

    Attributes:
        said: The reason alone, without what was asked.
    """

    def __init__(self, message: str, *, said: str = "", advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.said = said or message


class LoginFailed(RegistryDenied):
    """The registry doesn't take these credentials."""
