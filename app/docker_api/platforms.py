"""The `platform` parameter: which image of several is meant."""

import re

from app.core.errors import InvalidArgument, NotFound
from app.domain.image import Image

_PLATFORM = re.compile(
    r"(?P<bare>[a-z0-9_-]+)|(?P<system>[a-z]+)/(?P<architecture>[a-z0-9_-]+)(?:/v?\d+)?"
)
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}


def check_platform(image: Image, reference: str, platform: str) -> None:
    """Refuse an image that is for another platform than asked for.

    Args:
        image: As found.
        reference: As asked for.
        platform: `os[/architecture[/variant]]`, or an architecture alone.

    Raises:
        NotFound: In Docker's words.
        InvalidArgument: It is no platform.
    """
    system, architecture = _parse(platform, image)
    if (system, architecture) != (image.os, image.architecture):
        raise NotFound(
            f"image with reference {reference} was found but does not match the specified "
            f"platform: wanted {system}/{architecture}, actual: {image.os}/{image.architecture}"
        )


def _parse(platform: str, image: Image) -> tuple[str, str]:
    match = _PLATFORM.fullmatch(platform.lower())
    if match is None:
        raise InvalidArgument(f'"{platform}": unknown operating system or architecture')
    if match["bare"] in {"linux", "windows"}:
        return match["bare"], image.architecture
    architecture = match["bare"] or match["architecture"]
    return match["system"] or "linux", _ARCHITECTURES.get(architecture, architecture)
