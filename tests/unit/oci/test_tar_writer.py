"""The tar that sqfstar is given, read back by the standard library."""

import io
import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st

from app.oci.tar_reader import EntryKind
from app.oci.tar_writer import END_MARK, padding, tar_header

COMPONENTS = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=60
).filter(lambda text: text not in (".", ".."))


@settings(max_examples=60, deadline=None)
@given(
    path=st.lists(COMPONENTS, min_size=1, max_size=8).map("/".join),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    mtime_s=st.integers(0, 2**32 - 1),
    data=st.binary(max_size=1500),
)
def test_header_round_trip(path: str, mode: int, uid: int, mtime_s: int, data: bytes) -> None:
    name = path.encode()
    header = tar_header(
        name, EntryKind.FILE, mode=mode, uid=uid, gid=uid, mtime_s=mtime_s, size_bytes=len(data)
    )
    archive = header + data + padding(len(data)) + END_MARK
    with tarfile.open(fileobj=io.BytesIO(archive), errorlevel=2) as tar:
        [info] = tar.getmembers()
        file = tar.extractfile(info)
        assert file is not None
        assert file.read() == data
    assert (info.name, info.mode, info.uid, info.gid) == (path.rstrip("/"), mode, uid, uid)
    assert info.mtime == mtime_s


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from([b"user.a", b"security.b"]), st.binary(max_size=2000)))
def test_header_xattrs_round_trip(xattrs: dict[bytes, bytes]) -> None:
    archive = tar_header(b"x", EntryKind.DIRECTORY, xattrs=xattrs) + END_MARK
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        [info] = tar.getmembers()
    found = {
        key.removeprefix("SCHILY.xattr.").encode(): value.encode("utf-8", "surrogateescape")
        for key, value in info.pax_headers.items()
    }
    assert found == xattrs


def test_header_large_sizes_use_pax() -> None:
    header = tar_header(b"big", EntryKind.FILE, size_bytes=9 << 30)
    with tarfile.open(fileobj=io.BytesIO(header)) as tar:
        info = tar.next()
    assert info is not None
    assert info.size == 9 << 30


def test_header_long_link() -> None:
    archive = tar_header(b"l", EntryKind.SYMLINK, link=b"t" * 3000) + END_MARK
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getmembers()[0].linkname == "t" * 3000
