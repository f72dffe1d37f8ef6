"""What a layer may contain."""

import tarfile

import pytest

from app.core.errors import InvalidArgument
from app.oci import layer_index
from app.oci.layer_index import Attributes
from app.oci.limits import ImportLimits
from tests.unit.oci.archives import (
    END,
    Item,
    directory,
    hard_link,
    make_tar,
    pax_record,
    raw_entry,
    symlink,
)
from tests.unit.oci.readers import index_layer


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "a/..", "/../evil", "a/../b", "..", "./.././x", "a//..//b"],
)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
def test_layer_traversal_is_refused(name: str, kind: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"layer 1: entry .* leaves its directory"):
        index_layer(make_tar(Item(name, type=kind, link="x")))


@pytest.mark.parametrize("target", ["../../etc/shadow", "a/../../x", "/../x"])
def test_layer_hard_link_out_is_refused(target: str) -> None:
    with pytest.raises(InvalidArgument, match=r"target of .*leaves its directory"):
        index_layer(make_tar(Item("a", b""), hard_link("l", target)))


@pytest.mark.parametrize("target", ["/etc/shadow", "../../../../etc/shadow", "/proc/self/root"])
def test_layer_symlink_out_is_kept_as_text(target: str) -> None:
    index_layer(make_tar(symlink("l", target)))


@pytest.mark.parametrize(
    "items",
    [
        (symlink("l", "/etc"), Item("l/passwd", b"evil")),
        (symlink("l", "real"), directory("real"), Item("l/x", b"")),
        (symlink("l", "../.."), directory("l/x")),
        (symlink("l", "/"), hard_link("l/x", "l")),
        (symlink("l", "/"), Item("l/.wh.x")),
        (Item("f", b"1"), Item("f/x", b"2")),
        (Item("f", type=tarfile.FIFOTYPE), directory("f/x/y")),
    ],
)
def test_layer_entry_below_a_link_or_file_is_refused(items: tuple[Item, ...]) -> None:
    with pytest.raises(InvalidArgument, match=r"below .* which is a (symlink|file|fifo)"):
        index_layer(make_tar(*items))


def test_layer_absolute_names_are_made_relative() -> None:
    index = index_layer(raw_entry(b"//etc/./x", b"1") + END)
    assert index.implied_directories() == [b"etc"]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ((hard_link("a", "missing"),), "not before it in the same layer"),
        ((hard_link("a", "b"), Item("b", b"")), "not before it in the same layer"),
        ((directory("d"), hard_link("a", "d")), "to a directory"),
        ((hard_link("a", "/"),), "to a directory"),
        ((symlink("a", ""),), "impossible target"),
        ((symlink("a", "x" * 4096),), "impossible target"),
        ((Item("x" * 256, b""),), "longer than 255 bytes"),
        ((Item("/".join(["x" * 200] * 21), b""),), "longer than 4095 bytes"),
        ((Item("c", type=tarfile.CHRTYPE, device=(5000, 0)),), "impossible device"),
        ((Item("c", type=tarfile.BLKTYPE, device=(0, 2**20)),), "impossible device"),
        ((Item("a", uid=2**32 - 1),), "impossible owner"),
        ((Item("a", gid=2**40),), "impossible owner"),
        ((symlink(".", "x"),), "root that is no directory"),
        ((Item(".wh.", b""),), "whiteout of nothing"),
        ((Item("a/.wh...", b""),), "whiteout of nothing"),
        ((Item(".wh..wh..opq", b""),), "hides its whole parent"),
        ((Item(".wh.x/y", b""),), "below a whiteout"),
        ((Item("a", pax={"SCHILY.xattr.user." + "x" * 300: "1"}),), "impossible attribute"),
        ((Item("a", pax={"SCHILY.xattr.user.x": "1" * 70_000}),), "impossible attribute"),
    ],
)
def test_layer_impossible_entries_are_refused(items: tuple[Item, ...], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        index_layer(make_tar(*items))


@pytest.mark.parametrize("record", [pax_record(b"path", b"a\0b"), pax_record(b"linkpath", b"a\0")])
def test_layer_nul_is_refused(record: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"NUL|impossible target"):
        index_layer(raw_entry(b"x", record, b"x") + raw_entry(b"f", b"", b"2", link=b"x") + END)


def test_layer_entry_bomb_is_refused() -> None:
    data = make_tar(*(Item(f"f{n}") for n in range(11)))
    with pytest.raises(InvalidArgument, match="more than 10 entries"):
        index_layer(data, ImportLimits(layer_entries=10))
    index_layer(data, ImportLimits(layer_entries=11))


def test_layer_content_bomb_is_refused_by_its_headers() -> None:
    huge = raw_entry(b"x", pax_record(b"size", b"%d" % (1 << 50)), b"x") + raw_entry(b"f")
    with pytest.raises(InvalidArgument, match="unpacks to more than"):
        index_layer(huge)


def test_layer_owner_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_index, "OWNERS_MAX", 100)
    data = b"".join(raw_entry(b"f", uid=b"%07o\0" % n) for n in range(101))
    with pytest.raises(InvalidArgument, match="different owners"):
        index_layer(data + END)


def test_layer_replacement_bomb_is_refused() -> None:
    items = [item for _ in range(101) for item in (directory("d"), Item("d", b""))]
    with pytest.raises(InvalidArgument, match="replaces directories by files too often"):
        index_layer(make_tar(*items))


def test_layer_link_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_index, "LINKS_PER_FILE_MAX", 100)
    links = b"".join(raw_entry(b"l%d" % n, b"", b"1", link=b"f") for n in range(101))
    with pytest.raises(InvalidArgument, match="too many hard links"):
        index_layer(raw_entry(b"f") + links + END)


def test_layer_root_attributes_are_kept() -> None:
    index = index_layer(make_tar(directory("./", mode=0o1711, uid=4, gid=5, mtime=6)))
    assert index.root == Attributes(0o1711, 4, 5, 6)


def test_layer_error_names_the_cure() -> None:
    with pytest.raises(InvalidArgument) as caught:
        index_layer(make_tar(Item("../x")))
    assert "not imported" in caught.value.advice
