"""The initramfs archive, read back by cpio and byte by byte."""

import io
import os
import stat
import subprocess
from pathlib import Path

import pytest

from app.core.errors import InvalidArgument
from app.guest.cpio import (
    Entry,
    character_device_entry,
    directory_entry,
    file_entry,
    symlink_entry,
    write_newc,
)


def archive(*entries: Entry, mtime_s: int = 0) -> bytes:
    output = io.BytesIO()
    write_newc(entries, output, mtime_s=mtime_s)
    return output.getvalue()


def parse(data: bytes) -> list[tuple[str, dict[str, int], bytes]]:
    """Names, fields and contents; as strict as the kernel's unpacker."""
    names = "inode mode uid gid links mtime size devmajor devminor rmajor rminor name check".split()
    found: list[tuple[str, dict[str, int], bytes]] = []
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        assert at % 4 == 0
        fields = {
            key: int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i, key in enumerate(names)
        }
        name = data[at + 110 : at + 110 + fields["name"] - 1].decode()
        assert data[at + 109 + fields["name"]] == 0
        start = -(-(at + 110 + fields["name"]) // 4) * 4
        contents = data[start : start + fields["size"]]
        at = -(-(start + fields["size"]) // 4) * 4
        if name == "TRAILER!!!":
            assert not data[at:].strip(b"\0")
            assert len(data) % 512 == 0
            return found
        found.append((name, fields, contents))


def test_order_of_entries_does_not_change_the_bytes() -> None:
    entries = [file_entry("b/c", b"1"), file_entry("a", b"22"), directory_entry("b", 0o700)]
    assert archive(*entries) == archive(*reversed(entries))


def test_parents_come_first_and_are_made_if_missing() -> None:
    parsed = parse(archive(file_entry("lib/modules/x/y.ko", b"z"), file_entry("lib-1", b"")))
    assert [name for name, _, _ in parsed] == [
        "lib",
        "lib/modules",
        "lib/modules/x",
        "lib/modules/x/y.ko",
        "lib-1",
    ]
    assert parsed[0][1]["mode"] == stat.S_IFDIR | 0o755


def test_given_directory_keeps_its_mode() -> None:
    parsed = parse(archive(file_entry("d/f", b""), directory_entry("d", 0o700)))
    assert parsed[0][1]["mode"] == stat.S_IFDIR | 0o700


def test_fields_are_fixed_but_for_what_the_caller_gives() -> None:
    (parsed,) = parse(archive(Entry("f", stat.S_IFREG | 0o640, b"abc", 7, 8), mtime_s=1234))
    name, fields, contents = parsed
    assert (name, contents) == ("f", b"abc")
    assert fields["inode"] == 1
    assert (fields["uid"], fields["gid"], fields["mtime"], fields["size"]) == (7, 8, 1234, 3)
    assert (fields["devmajor"], fields["devminor"], fields["check"]) == (0, 0, 0)


def test_device_node_carries_its_number() -> None:
    parsed = parse(archive(character_device_entry("dev/console", 5, 1, 0o600)))
    fields = parsed[1][1]
    assert fields["mode"] == stat.S_IFCHR | 0o600
    assert (fields["rmajor"], fields["rminor"]) == (5, 1)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 511, 512])
def test_contents_of_any_length_are_padded(size: int) -> None:
    parsed = parse(archive(file_entry("f", b"x" * size), file_entry("g", b"next")))
    assert [contents for _, _, contents in parsed] == [b"x" * size, b"next"]


def test_cpio_itself_unpacks_it(tmp_path: Path) -> None:
    data = archive(
        file_entry("bin/sh", b"#!", 0o755),
        symlink_entry("bin/ash", "sh"),
        directory_entry("tmp", 0o1777),
    )
    subprocess.run(
        ["busybox", "cpio", "-id"],
        input=data,
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=10,
    )
    assert (tmp_path / "bin/ash").read_bytes() == b"#!"
    assert os.access(tmp_path / "bin/sh", os.X_OK)
    assert stat.S_IMODE((tmp_path / "tmp").stat().st_mode) == 0o1777


@pytest.mark.parametrize(
    "path", ["", "/etc", "a/../b", "a//b", "./a", "a/", "..", "a\0b", "TRAILER!!!"]
)
def test_path_that_is_unclear_is_refused(path: str) -> None:
    with pytest.raises(InvalidArgument, match="no path inside"):
        archive(file_entry(path, b""))


def test_path_given_twice_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="twice"):
        archive(file_entry("a", b""), directory_entry("a"))


def test_entry_below_a_file_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="/a is no directory"):
        archive(file_entry("a", b""), file_entry("a/b/c", b""))


def test_number_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="does not fit"):
        archive(Entry("a", stat.S_IFREG, uid=1 << 32))
