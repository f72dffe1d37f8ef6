"""When an image may go: Docker's rules for `rmi`, as pure functions.

Source: moby, daemon/images/image_delete.go. One difference: an image that a stopped container
uses is never deleted, not even by force, since the container needs its layers to start again; it
loses its names and waits, untagged, for the container's removal.
"""

from collections.abc import Collection
from dataclasses import dataclass

from app.core.errors import Conflict
from app.core.ids import short_id
from app.domain.image import Image, ImageUser
from app.domain.reference import Reference


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """What a removal will do.

    Attributes:
        untag: References to drop.
        is_deleted: Whether the image's data goes, too.
    """

    untag: tuple[Reference, ...]
    is_deleted: bool


def plan_removal(
    image: Image,
    reference: Reference | None,
    *,
    force: bool,
    users: Collection[ImageUser],
    is_leased: bool = False,
    asked_as: str = "",
) -> RemovalPlan:
    """Decide what removing `image` does.

    Args:
        image: What the name stands for.
        reference: The reference it was asked for by; None if by id.
        force: As `docker rmi --force`.
        users: All containers; those of other images are ignored.
        is_leased: Somebody in this process needs the data now.
        asked_as: The name as it was given, for the text of a refusal.

    Raises:
        Conflict: With Docker's text.
    """
    mine = [user for user in users if user.image_id == image.id]
    if reference is not None:
        return _plan_by_name(
            image, reference, force, mine, is_leased, asked_as or reference.familiar
        )
    _check_by_id(image, force, mine)
    return RemovalPlan(image.references, is_deleted=not mine and not is_leased)


def _check_by_id(image: Image, force: bool, mine: list[ImageUser]) -> None:
    repositories = {item.name for item in image.references}
    if not force and len(repositories) > 1:
        raise _cannot_delete(
            image, "must be forced", "image is referenced in multiple repositories"
        )
    running = next((user for user in mine if user.is_running), None)
    if running is not None:
        raise _cannot_delete(
            image,
            "cannot be forced",
            f"image is being used by running container {short_id(running.container_id)}",
        )
    if mine and not force:
        raise _cannot_delete(
            image,
            "must be forced",
            f"image is being used by stopped container {short_id(mine[0].container_id)}",
        )


def _plan_by_name(
    image: Image,
    reference: Reference,
    force: bool,
    mine: list[ImageUser],
    is_leased: bool,
    asked_as: str,
) -> RemovalPlan:
    untag = (reference, *_companions(image, reference))
    if len(image.references) > len(untag):
        return RemovalPlan(untag, is_deleted=False)
    if mine and not force:
        raise Conflict(
            f'conflict: unable to remove repository reference "{asked_as}" (must force)'
            f" - container {short_id(mine[0].container_id)} is using its referenced image"
            f" {image.short_id}",
            advice="Remove the container first.",
        )
    return RemovalPlan(untag, is_deleted=not mine and not is_leased)


def _companions(image: Image, reference: Reference) -> tuple[Reference, ...]:
    """Digests of a repository, which go with its last tag."""
    others = [item for item in image.references if item.name == reference.name]
    if reference.tag is None or any(item.tag and item != reference for item in others):
        return ()
    return tuple(item for item in others if item.tag is None)


def _cannot_delete(image: Image, remedy: str, reason: str) -> Conflict:
    return Conflict(
        f"conflict: unable to delete {image.short_id} ({remedy}) - {reason}",
        advice="Remove the container first." if "container" in reason else "",
    )
