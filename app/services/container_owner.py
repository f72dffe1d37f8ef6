"""A container's user as numbers, by its own /etc/passwd and /etc/group."""

from collections.abc import Awaitable, Callable

from app.core.errors import NotFound

ReadText = Callable[[str], Awaitable[str]]


async def owner_of(user: str, read: ReadText) -> tuple[int, int]:
    """Look `name|uid[:group|gid]` up; a number without an entry stands for itself, group 0.

    Raises:
        NotFound: There is no such user or group.
    """
    name, _, group = user.partition(":")
    uid, gid = await _find_user(name, read)
    if group:
        gid = await _find_group(group, read)
    return uid, gid


async def _find_user(name: str, read: ReadText) -> tuple[int, int]:
    for line in (await read("/etc/passwd")).splitlines():
        fields = line.split(":")
        if len(fields) >= 4 and name in {fields[0], fields[2]} and _are_numbers(*fields[2:4]):
            return int(fields[2]), int(fields[3])
    if _are_numbers(name):
        return int(name), 0
    raise NotFound(f"unable to find user {name}: no matching entries in passwd file")


async def _find_group(name: str, read: ReadText) -> int:
    if _are_numbers(name):
        return int(name)
    for line in (await read("/etc/group")).splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[0] == name and _are_numbers(fields[2]):
            return int(fields[2])
    raise NotFound(f"unable to find group {name}: no matching entries in group file")


def _are_numbers(*texts: str) -> bool:
    return all(text.isascii() and text.isdigit() and len(text) <= 9 for text in texts)
