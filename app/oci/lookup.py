"""Finds the image that a name means, by Docker's order: id, reference, id prefix.

Source: moby, daemon/images/image.go, GetImage.
"""

import re
from collections.abc import Iterable

from app.core.errors import InvalidArgument
from app.domain.image import Image, ImageNotFound
from app.domain.reference import Reference

_ID_RE = re.compile(r"(?:sha256:)?([a-f0-9]{1,64})")


def find_image(images: Iterable[Image], name: str) -> tuple[Image, Reference | None]:
    """The image, and the reference it was found by (None if by id or digest).

    Raises:
        ImageNotFound: None fits, or a prefix fits several.
    """
    candidates = list(images)
    digits = _ID_RE.fullmatch(name)
    if digits is not None and len(digits[1]) == 64:
        for image in candidates:
            if image.id == f"sha256:{digits[1]}":
                return image, None
    reference = _parse(name)
    if reference is not None and (found := _by_reference(candidates, reference)) is not None:
        return found
    if digits is not None and (by_id := _by_prefix(candidates, digits[1], name)) is not None:
        return by_id, None
    raise ImageNotFound(reference.familiar if reference is not None else name)


def _by_reference(
    images: list[Image], reference: Reference
) -> tuple[Image, Reference | None] | None:
    for image in images:
        if reference in image.references:
            return image, reference
        if reference.digest == image.manifest_digest and any(
            known.name == reference.name for known in image.references
        ):
            return image, None
    return None


def _by_prefix(images: list[Image], digits: str, name: str) -> Image | None:
    fitting = [image for image in images if image.id.startswith(f"sha256:{digits}")]
    if len(fitting) > 1:
        raise ImageNotFound(
            name, advice=f"{len(fitting)} images have ids that begin so; give more digits."
        )
    return fitting[0] if fitting else None


def _parse(name: str) -> Reference | None:
    try:
        return Reference.parse(name)
    except InvalidArgument:
        return None
