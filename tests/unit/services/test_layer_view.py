"""A container's own layer as Docker shows it."""

import stat

import pytest

from app.core.errors import NotFound
from app.guest.protocol import ChangeKind
from app.guest.tree_records import TreeEntry
from app.services.container_owner import owner_of
from app.services.layer_view import changes_of, layer_name

FILE, DIRECTORY = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
MODIFIED, ADDED, DELETED, SAME = ChangeKind


def entry(name: bytes, change: ChangeKind, mode: int = FILE, size: int = 1) -> TreeEntry:
    return TreeEntry(name, mode, size_bytes=size, change=change)


def shown(*entries: TreeEntry) -> list[str]:
    return [f"{'CAD'[each.kind]} {each.path}" for each in changes_of(entries)]


def test_what_a_start_makes_to_mount_on_is_no_change() -> None:
    assert (
        shown(
            entry(b"dev", ADDED, DIRECTORY),
            entry(b"proc", ADDED, DIRECTORY),
            entry(b"sys", ADDED, DIRECTORY),
            entry(b"etc", MODIFIED, DIRECTORY),
            entry(b"etc/hosts", ADDED, size=0),
            entry(b"etc/resolv.conf", ADDED, size=0),
        )
        == []
    )


def test_a_file_that_was_written_there_is_one() -> None:
    assert shown(
        entry(b"etc", MODIFIED, DIRECTORY), entry(b"etc/hosts", MODIFIED), entry(b"dev", ADDED)
    ) == ["A /dev", "C /etc", "C /etc/hosts"]


def test_parents_of_what_was_added_or_deleted_are_modified() -> None:
    assert shown(
        entry(b"a", SAME, DIRECTORY),
        entry(b"a/b", SAME, DIRECTORY),
        entry(b"a/b/new", ADDED),
        entry(b"c", SAME, DIRECTORY),
        entry(b"c/gone", DELETED, stat.S_IFCHR),
        entry(b"d", SAME, DIRECTORY),
        entry(b"d/changed", MODIFIED),
        entry(b"top", ADDED),
    ) == ["C /a/b", "A /a/b/new", "C /c", "D /c/gone", "C /d/changed", "A /top"]


def test_the_layer_has_neither_the_top_nor_mount_points() -> None:
    assert layer_name(entry(b".", SAME, DIRECTORY), {b"."}) is None
    assert layer_name(entry(b"proc", ADDED, DIRECTORY), {b"proc"}) is None
    assert layer_name(entry(b"etc", MODIFIED, DIRECTORY), set()) is None
    assert layer_name(entry(b"etc", MODIFIED, DIRECTORY), {b"etc"}) == b"etc"
    assert layer_name(entry(b"etc/hosts", MODIFIED), set()) == b"etc/hosts"


PASSWD = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\nbroken:x:y:z\n"


@pytest.mark.parametrize(
    ("user", "owner"),
    [("web", (33, 34)), ("33", (33, 34)), ("web:adm", (33, 4)), ("7", (7, 0)), ("7:8", (7, 8))],
)
async def test_users_are_looked_up_in_the_container(user: str, owner: tuple[int, int]) -> None:
    async def read(path: str) -> str:
        return PASSWD if path == "/etc/passwd" else "adm:x:4:\n"

    assert await owner_of(user, read) == owner


@pytest.mark.parametrize("user", ["nobody", "broken", "web:none"])
async def test_users_that_are_not_there(user: str) -> None:
    async def read(path: str) -> str:
        return PASSWD if path == "/etc/passwd" else ""

    with pytest.raises(NotFound, match="unable to find"):
        await owner_of(user, read)
