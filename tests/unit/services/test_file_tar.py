"""Trees as tar and back; archives and guests that mean harm."""

import asyncio
import io
import stat
import tarfile
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import CorruptData, InvalidArgument
from app.guest.tree_records import TreeData, TreeEntry, is_inside
from app.services.file_tar import TreeTar, tree_of_tar, upload_records

FILE, DIRECTORY, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777


def tar_of(*records: TreeEntry | TreeData, is_layer: bool = False) -> bytes:
    tar = TreeTar(lambda entry: entry.name, is_layer=is_layer)
    pieces = [piece for record in records for piece in tar.feed(record)]
    return b"".join([*pieces, *tar.finish()])


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member for member in tar}


def archive(*infos: tarfile.TarInfo, content: bytes = b"", mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for info in infos:
            info.size = len(content) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return out.getvalue()


def info(name: str, **more: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(made, key, value)
    return made


def records_of(data: bytes) -> list[TreeEntry | TreeData]:
    return list(tree_of_tar(io.BytesIO(data), what="the archive"))


names = st.lists(
    st.text("abc.é- ", min_size=1, max_size=40).filter(lambda part: part.strip(".")),
    min_size=1,
    max_size=5,
).map(lambda parts: "/".join(parts).encode())


@given(
    st.dictionaries(names, st.binary(max_size=2000), max_size=5),
    st.integers(0, 2**31),
    st.integers(0, 0o7777),
)
def test_files_survive_the_way_there_and_back(
    files: dict[bytes, bytes], owner: int, bits: int
) -> None:
    written: list[TreeEntry | TreeData] = []
    for name, content in files.items():
        mode = stat.S_IFREG | bits
        written.append(
            TreeEntry(
                name, mode, owner, owner, 7 * 10**9, len(content), xattrs=((b"user.a", b"=\n"),)
            )
        )
        if content:
            written.append(TreeData(0, content))
    found = records_of(tar_of(*written))
    assert [each for each in found if isinstance(each, TreeEntry)] == [
        each for each in written if isinstance(each, TreeEntry)
    ]
    data = b"".join(each.data for each in found if isinstance(each, TreeData))
    assert data.replace(b"\0", b"") == b"".join(files.values()).replace(b"\0", b"")


def test_holes_are_zeros_in_the_archive_and_holes_again() -> None:
    size = 1_000_000
    data = tar_of(TreeEntry(b"f", FILE, size_bytes=size), TreeData(500_000, b"middle"))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        file = tar.extractfile("f")
        assert file is not None
        content = file.read()
    assert len(content) == size
    assert content[500_000:500_006] == b"middle"
    entry, *pieces = records_of(data)
    assert isinstance(entry, TreeEntry)
    assert entry.size_bytes == size
    assert sum(len(each.data) for each in pieces if isinstance(each, TreeData)) <= 2 * 65536


def test_a_file_that_became_shorter_is_filled_with_zeros() -> None:
    data = tar_of(TreeEntry(b"f", FILE, size_bytes=1000), TreeData(0, b"x"), TreeEntry(b"g", FILE))
    assert members(data)["f"].size == 1000
    assert set(members(data)) == {"f", "g"}


def test_further_names_of_a_file_are_hard_links() -> None:
    first = TreeEntry(b"a", FILE, size_bytes=1, file_key=b"k")
    again = TreeEntry(b"b", FILE, size_bytes=1, file_key=b"k")
    found = members(tar_of(first, TreeData(0, b"x"), again, TreeData(0, b"x")))
    assert (found["b"].islnk(), found["b"].linkname) == (True, "a")


def test_an_upper_layer_becomes_a_layer_of_an_image() -> None:
    found = members(
        tar_of(
            TreeEntry(b"d", DIRECTORY, is_opaque=True),
            TreeEntry(b"d/gone", stat.S_IFCHR),
            TreeEntry(b"null", stat.S_IFCHR | 0o666, device=(1, 3)),
            is_layer=True,
        )
    )
    assert list(found) == ["d", "d/.wh..wh..opq", "d/.wh.gone", "null"]
    assert found["null"].ischr()


@pytest.mark.parametrize(
    "harm",
    [
        info("../x"),
        info("a/../../x"),
        info(".."),
        info("a", type=tarfile.LNKTYPE, linkname="../../etc/passwd"),
        info("a", type=tarfile.SYMTYPE, linkname=""),
        info("a", uid=2**32),
        info("a", mtime=2**34),
        info("n" * 5000),
    ],
    ids=["up", "through", "parent", "hard link", "empty link", "owner", "time", "long"],
)
def test_archives_that_mean_harm_are_refused(harm: tarfile.TarInfo) -> None:
    with pytest.raises(InvalidArgument):
        records_of(archive(info("fine"), harm))


def test_absolute_names_are_meant_from_the_directory_on() -> None:
    found = records_of(archive(info("/etc//passwd"), info("./a/./b")))
    assert [each.name for each in found if isinstance(each, TreeEntry)] == [b"etc/passwd", b"a/b"]


@given(st.binary(max_size=3000))
def test_any_bytes_are_a_tree_or_refused(data: bytes) -> None:
    try:
        found = records_of(data)
    except (CorruptData, InvalidArgument):
        return
    assert all(not isinstance(each, TreeEntry) or is_inside(each.name) for each in found)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
async def test_an_upload_may_be_packed_and_come_in_any_pieces(mode: str) -> None:
    content = bytes(range(256)) * 2000
    data = archive(info("f"), content=content, mode=mode)

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(data), 777):
            yield data[at : at + 777]

    found = [each async for batch in upload_records(chunks(), what="it") for each in batch]
    assert b"".join(each.data for each in found if isinstance(each, TreeData)) == content


async def test_an_upload_that_is_given_up_leaves_no_thread() -> None:
    head = archive(info("f"), content=b"x" * 100_000)[:5000]

    async def stalls() -> AsyncIterator[bytes]:
        yield head
        await asyncio.Event().wait()

    async def read() -> None:
        async for _ in upload_records(stalls(), what="it"):
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await task
    assert task.cancelled()


async def test_an_upload_that_ends_early_is_corrupt() -> None:
    data = archive(info("f"), content=b"x" * 100_000)

    async def chunks() -> AsyncIterator[bytes]:
        yield data[:50_000]

    with pytest.raises(CorruptData):
        async for _ in upload_records(chunks(), what="it"):
            pass
