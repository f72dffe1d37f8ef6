"""What a layer becomes: the tar that goes to sqfstar."""

import random
import tarfile

from app.oci.layer_filter import OPAQUE_XATTR
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
from tests.unit.oci.readers import Node, filter_bytes, filtered_tree

OPAQUE = f"SCHILY.xattr.{OPAQUE_XATTR.decode()}"


def is_whiteout(node: Node) -> bool:
    return node.type == tarfile.CHRTYPE and (node.info.devmajor, node.info.devminor) == (0, 0)


def test_filter_keeps_a_plain_tree() -> None:
    tree = filtered_tree(
        make_tar(
            directory("etc", mode=0o750, uid=1, gid=2, mtime=3),
            Item("etc/file", b"data", mode=0o4640, uid=4, gid=5, mtime=6),
            symlink("etc/link", "/anywhere"),
            Item("null", type=tarfile.CHRTYPE, device=(1, 3)),
            Item("pipe", type=tarfile.FIFOTYPE),
        )
    )
    assert list(tree) == ["etc", "etc/file", "etc/link", "null", "pipe"]
    info = tree["etc/file"].info
    assert (info.mode, info.uid, info.gid, info.mtime) == (0o4640, 4, 5, 6)
    assert tree["etc/file"].data == b"data"
    assert tree["etc/link"].info.linkname == "/anywhere"
    assert (tree["null"].info.devmajor, tree["null"].info.devminor) == (1, 3)


def test_filter_drops_the_root_entry() -> None:
    assert list(filtered_tree(make_tar(directory("./"), Item("./a", b"")))) == ["a"]


def test_filter_describes_missing_parents() -> None:
    tree = filtered_tree(make_tar(Item("a/b/c", b"1")))
    assert list(tree) == ["a", "a/b", "a/b/c"]
    info = tree["a/b"].info
    assert (info.type, info.mode, info.uid, info.mtime) == (tarfile.DIRTYPE, 0o755, 0, 0)


def test_filter_whiteouts_become_devices() -> None:
    tree = filtered_tree(make_tar(directory("d"), Item("d/.wh.gone"), Item(".wh.top")))
    assert set(tree) == {"d", "d/gone", "top"}
    assert is_whiteout(tree["d/gone"])
    assert is_whiteout(tree["top"])


def test_filter_opaque_directories_get_the_attribute() -> None:
    tree = filtered_tree(make_tar(Item("d/.wh..wh..opq"), directory("d", mode=0o700)))
    assert list(tree) == ["d"]
    assert tree["d"].info.pax_headers[OPAQUE] == "y"
    assert tree["d"].info.mode == 0o700


def test_filter_opaque_directory_without_entry() -> None:
    tree = filtered_tree(make_tar(Item("d/.wh..wh..opq"), Item("d/new", b"")))
    assert tree["d"].info.pax_headers[OPAQUE] == "y"


def test_filter_whiteout_beside_its_file_is_dropped() -> None:
    for items in ((Item(".wh.f"), Item("f", b"new")), (Item("f", b"new"), Item(".wh.f"))):
        tree = filtered_tree(make_tar(*items))
        assert tree["f"].data == b"new"


def test_filter_whiteout_beside_its_directory_makes_it_opaque() -> None:
    tree = filtered_tree(make_tar(Item(".wh.d"), directory("d"), Item("d/x", b"")))
    assert tree["d"].info.pax_headers[OPAQUE] == "y"


def test_filter_aufs_files_are_skipped() -> None:
    tree = filtered_tree(
        make_tar(Item(".wh..wh.aufs"), directory(".wh..wh.plnk"), Item(".wh..wh.plnk/1.2", b"x"))
    )
    assert tree == {}


def test_filter_last_duplicate_wins() -> None:
    tree = filtered_tree(make_tar(Item("f", b"old"), Item("f", b"newer"), symlink("l", "a"),
                                  symlink("l", "b")))  # fmt: skip
    assert tree["f"].data == b"newer"
    assert tree["l"].info.linkname == "b"


def test_filter_directory_repeated_keeps_its_content() -> None:
    tree = filtered_tree(
        make_tar(directory("d", mode=0o700), Item("d/x", b""), directory("d", mode=0o711))
    )
    assert set(tree) == {"d", "d/x"}
    assert tree["d"].info.mode == 0o711


def test_filter_file_replaces_directory_with_its_content() -> None:
    tree = filtered_tree(
        make_tar(
            directory("d"), Item("d/x", b""), Item("d/.wh.y"), Item("dx", b""), Item("d", b"1")
        )
    )
    assert set(tree) == {"d", "dx"}
    assert tree["d"].data == b"1"


def test_filter_directory_replaces_file() -> None:
    tree = filtered_tree(make_tar(Item("d", b"1"), directory("d"), Item("d/x", b"")))
    assert tree["d"].type == tarfile.DIRTYPE


def test_filter_hard_links_follow_their_file() -> None:
    tree = filtered_tree(make_tar(Item("a", b"1"), hard_link("b", "a"), hard_link("c", "/b")))
    assert list(tree) == ["a", "b", "c"]
    assert (tree["b"].type, tree["b"].info.linkname) == (tarfile.LNKTYPE, "a")
    assert (tree["c"].type, tree["c"].info.linkname) == (tarfile.LNKTYPE, "a")


def test_filter_hard_link_keeps_what_a_later_entry_replaces() -> None:
    tree = filtered_tree(make_tar(Item("a", b"old"), hard_link("b", "a"), Item("a", b"new")))
    assert tree["b"].data == b"old"
    assert tree["a"].data == b"new"


def test_filter_hard_link_replaced_by_a_file() -> None:
    tree = filtered_tree(make_tar(Item("a", b"1"), hard_link("b", "a"), Item("b", b"2")))
    assert (tree["a"].data, tree["b"].data) == (b"1", b"2")


def test_filter_hard_link_to_itself_changes_nothing() -> None:
    tree = filtered_tree(make_tar(Item("a", b"1"), hard_link("a", "a")))
    assert tree["a"].data == b"1"


def test_filter_overlay_attributes_are_dropped() -> None:
    names = {
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.metacopy": "y",
        "SCHILY.xattr.system.posix_acl_access": "x",
        "SCHILY.xattr.user.kept": "1",
        "SCHILY.xattr.security.capability": "2",
    }
    tree = filtered_tree(make_tar(directory("d", pax=names)))
    assert tree["d"].info.pax_headers == {
        "SCHILY.xattr.user.kept": "1",
        "SCHILY.xattr.security.capability": "2",
    }


def test_filter_times_are_clamped() -> None:
    late = raw_entry(b"x", pax_record(b"mtime", b"9999999999"), b"x") + raw_entry(b"f") + END
    assert filtered_tree(late)["f"].info.mtime == 2**32 - 1


def test_filter_names_that_are_no_text_survive() -> None:
    data = filter_bytes(raw_entry(b"\xff\xfe\n", b"1") + END)
    assert data.startswith(b"\xff\xfe\n")


def test_filter_is_deterministic() -> None:
    items = [Item(f"d{n % 7}/f{n}", b"x" * n) for n in range(50)]
    items += [Item(f"d{n}/.wh.g{n}") for n in range(7)]
    assert filter_bytes(make_tar(*items)) == filter_bytes(make_tar(*items))
    shuffled = items[:]
    random.Random(1).shuffle(shuffled)
    assert set(filtered_tree(make_tar(*shuffled))) == set(filtered_tree(make_tar(*items)))
