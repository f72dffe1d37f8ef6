"""Which images a request means (moby, daemon/images/images.go)."""

import re
from collections.abc import Callable
from functools import lru_cache

from app.core.errors import InvalidArgument
from app.docker_api.container_list import labels_match
from app.docker_api.container_upkeep import label_filters_match, older_than
from app.docker_api.image_view import created_s
from app.docker_api.parameters import Filters, filter_flag
from app.docker_api.times import NS_PER_S
from app.domain.image import Image
from app.domain.reference import Reference

LIST_FILTERS = frozenset({"before", "dangling", "label", "reference", "since", "until"})
PRUNE_FILTERS = frozenset({"dangling", "label", "label!", "until"})

FindImage = Callable[[str], Image]


def select(
    images: list[Image], filters: Filters, *, find: FindImage
) -> list[tuple[Image, list[Reference]]]:
    """The images that are wanted, each with those of its names that are.

    Args:
        images: All of them, newest first.
        filters: By name.
        find: An image by name or id; raises NotFound.
    """
    dangling = filter_flag(filters, "dangling")
    patterns = filters.get("reference", ())
    is_old = older_than(filters)
    limits = [created_s(find(text)) for text in filters.get("before", ())]
    floors = [created_s(find(text)) for text in filters.get("since", ())]
    chosen = []
    for image in images:
        names = [name for name in image.references if name.tag is not None]
        if patterns:
            names = [name for name in names if any(name_fits(name, each) for each in patterns)]
        wanted = (
            (names or not patterns)
            and (dangling is None or dangling == (not image.references))
            and all(created_s(image) < limit for limit in limits)
            and all(created_s(image) > floor for floor in floors)
            and is_old(created_s(image) * NS_PER_S)
            and labels_match(filters.get("label", ()), dict(image.config.labels))
        )
        if wanted:
            chosen.append((image, names))
    return chosen


def pruned(filters: Filters) -> Callable[[Image], bool]:
    """Which images a prune picks, but for `dangling`."""
    is_old = older_than(filters)

    def picks(image: Image) -> bool:
        return is_old(created_s(image) * NS_PER_S) and label_filters_match(
            filters, dict(image.config.labels)
        )

    return picks


def name_fits(name: Reference, pattern: str) -> bool:
    """Docker's FamiliarMatch: a shell pattern over the name with its tag, or without."""
    match = _compiled(pattern).fullmatch
    return match(name.familiar) is not None or match(name.familiar_name) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Go's path.Match: `*` and `?` stop at a slash.

    Raises:
        InvalidArgument: A class has no end.
    """
    regex, place = "", 0
    while place < len(pattern):
        letter = pattern[place]
        place += 1
        if letter == "*":
            regex += "[^/]*"
        elif letter == "?":
            regex += "[^/]"
        elif letter == "[":
            end = pattern.find("]", place + 1)
            if end < 0:
                raise InvalidArgument("syntax error in pattern")
            inner = pattern[place:end].replace("\\", "\\\\")
            regex += f"[{inner}]"
            place = end + 1
        elif letter == "\\" and place < len(pattern):
            regex += re.escape(pattern[place])
            place += 1
        else:
            regex += re.escape(letter)
    try:
        return re.compile(regex)
    except re.error as error:
        raise InvalidArgument("syntax error in pattern") from error
