"""Our disks hold what other tools unpack: GNU tar's formats, and umoci over whole images.

umoci unpacks an image to a directory, layer over layer. Our disks, unpacked by unsquashfs and laid
over each other as overlayfs does, must give the same tree: names, kinds, modes, owners, times,
contents, link targets, hard link groups, attributes.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.integration.image_lab import import_bytes, open_store
from tests.unit.oci.archives import (
    Item,
    OciLayout,
    directory,
    hard_link,
    make_tar,
    symlink,
)

OPAQUE = "trusted.overlay.opaque"

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="unpacking devices and owners for the comparison needs root"
)
needs_umoci = pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")


def describe(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything a program could see of a tree."""
    inodes: dict[int, str] = {}
    tree: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        name = str(path.relative_to(root))
        kind = stat.S_IFMT(info.st_mode)
        content: object = None
        if stat.S_ISREG(info.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(info.st_mode):
            content = path.readlink()
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            content = (os.major(info.st_rdev), os.minor(info.st_rdev))
        first = inodes.setdefault(info.st_ino, name) if kind != stat.S_IFDIR else name
        xattrs = {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)
            if not key.startswith("user.umoci")
        }
        time_s = int(info.st_mtime) if kind != stat.S_IFDIR else None
        tree[name] = (
            oct(info.st_mode), info.st_uid, info.st_gid, time_s, content, first,
            sorted(xattrs.items()),
        )  # fmt: skip
    return tree


def lay_over(lower: Path, upper: Path) -> None:
    """What overlayfs shows of two directories, made in `lower`."""
    for path in sorted(upper.rglob("*")):
        target = lower / path.relative_to(upper)
        info = path.lstat()
        is_directory = stat.S_ISDIR(info.st_mode)
        is_opaque = is_directory and OPAQUE in os.listxattr(path)
        if os.path.lexists(target) and not (is_directory and target.is_dir() and not is_opaque):
            shutil.rmtree(
                target
            ) if target.is_dir() and not target.is_symlink() else target.unlink()
        if is_directory:
            target.mkdir(exist_ok=True)
            os.chown(target, info.st_uid, info.st_gid)
            target.chmod(stat.S_IMODE(info.st_mode))
        elif not (stat.S_ISCHR(info.st_mode) and info.st_rdev == 0):
            os.link(path, target, follow_symlinks=False)  # keeps attributes and hard links


async def make_disks(store_root: Path, archive: bytes) -> list[Path]:
    async with open_store(store_root) as store:
        [image] = await import_bytes(store, archive)
        return list(await store.layer_disks(image))


def unpack_ours(tmp_path: Path, archive: bytes) -> Path:
    merged = tmp_path / "merged"
    for number, disk in enumerate(asyncio.run(make_disks(tmp_path / "store", archive))):
        target = tmp_path / f"layer{number}" if number else merged
        subprocess.run(
            ["unsquashfs", "-no-progress", "-d", target, disk], check=True, capture_output=True
        )
        if number:
            lay_over(merged, target)
    return merged


def unpack_umoci(tmp_path: Path, archive: bytes) -> Path:
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    layout.mkdir()
    (tmp_path / "image.tar").write_bytes(archive)
    subprocess.run(["tar", "-xf", tmp_path / "image.tar", "-C", layout], check=True)
    subprocess.run(
        ["umoci", "unpack", "--image", f"{layout}:app", bundle], check=True, capture_output=True
    )
    return bundle / "rootfs"


BASE = make_tar(
    directory("./"),
    directory("bin"),
    Item("bin/tool", b"t" * 70_000, mode=0o4755),
    hard_link("bin/same", "bin/tool"),
    directory("etc", mode=0o750, uid=1, gid=2),
    Item("etc/a", b"a", uid=100_000, gid=3),
    Item("etc/b", b"b"),
    symlink("etc/link", "/etc/a"),
    symlink("dangling", "../../nowhere"),
    directory("data"),
    directory("data/deep"),
    Item("data/deep/x", b"x"),
    Item("data/y", b"y"),
    directory("gone"),
    Item("gone/z", b"z"),
    directory("dev"),
    Item("dev/null", type=b"3", device=(1, 3), mode=0o666),
    Item("dev/loop", type=b"4", device=(7, 0)),
    Item("dev/pipe", type=b"6", mode=0o600),
    Item("long/" + "n" * 200 + "/" + "m" * 200, b"long"),
    Item("twice", b"first"),
    Item("twice", b"second", mode=0o600),
    Item("uni-ü-日本", b"u"),
    Item("xattr", b"x", pax={"SCHILY.xattr.user.note": "hello"}),
    directory("tmp", mode=0o1777),
    symlink("kind", "bin"),
)
CHANGES = make_tar(
    directory("etc", mode=0o700, uid=1, gid=2),
    Item("etc/.wh.a"),
    Item("etc/b", b"new b", mode=0o600),
    Item(".wh.gone"),
    directory("data"),
    Item("data/.wh..wh..opq"),
    Item("data/only", b"only"),
    Item("kind", b"a file now"),
    directory("dangling"),
    Item("dangling/here", b"1"),
)
MORE = make_tar(
    directory("gone"),
    Item("gone/again", b"g"),
    directory("etc", mode=0o755),
    Item("etc/a", b"back"),
    hard_link("etc/a2", "etc/a"),
    Item(".wh.kind"),
    Item("bin/.wh.same"),
)
EMPTY = bytes(10240)


def oci(*layers: bytes) -> bytes:
    layout = OciLayout()
    layout.name(layout.image(layers), "app")
    return layout.archive()


CORPUS = {
    "base": oci(BASE),
    "changes": oci(BASE, CHANGES),
    "more": oci(BASE, CHANGES, MORE),
    "whiteouts-only": oci(BASE, make_tar(Item(".wh.etc"), Item("bin/.wh.tool"))),
    "empty-between": oci(BASE, EMPTY, MORE),
}


@needs_root
@needs_umoci
@pytest.mark.timeout(120)
@pytest.mark.parametrize("archive", CORPUS.values(), ids=CORPUS)
def test_corpus_is_as_umoci_unpacks_it(tmp_path: Path, archive: bytes) -> None:
    ours, theirs = unpack_ours(tmp_path, archive), unpack_umoci(tmp_path, archive)
    tree = describe(ours)
    assert len(tree) >= 10
    assert tree == describe(theirs)


@pytest.fixture
def sample_tree(tmp_path: Path) -> Path:
    """Files as GNU tar finds them, a sparse one among them."""
    root = tmp_path / "tree"
    (root / "dir" / ("d" * 120)).mkdir(parents=True)
    (root / "dir" / ("d" * 120) / ("f" * 120)).write_bytes(b"long")
    (root / "plain").write_bytes(b"p" * 1000)
    (root / "hard").hardlink_to(root / "plain")
    (root / "link").symlink_to("l" * 150)
    with (root / "sparse").open("wb") as file:
        for offset in range(0, 4 << 20, 1 << 18):
            file.seek(offset)
            file.write(b"data at %d" % offset)
        file.truncate(5 << 20)
    return root


GNU_OPTIONS = {
    "v7": ["--format=v7"],
    "ustar": ["--format=ustar"],
    "gnu": ["--format=gnu"],
    "gnu-sparse": ["--format=gnu", "--sparse"],
    "pax": ["--format=pax"],
    "pax-sparse-0.0": ["--format=pax", "--sparse-version=0.0"],
    "pax-sparse-0.1": ["--format=pax", "--sparse-version=0.1"],
    "pax-sparse-1.0": ["--format=pax", "--sparse-version=1.0"],
    "label": ["--format=gnu", "--label=volume"],
}


@pytest.mark.parametrize("options", GNU_OPTIONS.values(), ids=GNU_OPTIONS)
def test_corpus_of_gnu_tar_is_unpacked_alike(
    tmp_path: Path, sample_tree: Path, options: list[str]
) -> None:
    if "v7" in options[0] or "ustar" in options[0]:  # too small for such names
        shutil.rmtree(sample_tree / "dir")
        (sample_tree / "link").unlink()
    archive = tmp_path / "sample.tar"
    made = subprocess.run(
        ["tar", *options, "-C", sample_tree, "-cf", archive, "."], check=False, capture_output=True
    )
    assert made.returncode == 0, made.stderr
    disk = asyncio.run(make_rootfs(tmp_path / "store", archive.read_bytes()))
    ours = tmp_path / "ours"
    with contextlib.suppress(subprocess.CalledProcessError):  # as a user: owners can't be set
        subprocess.run(
            ["unsquashfs", "-no-progress", "-d", ours, disk], check=True, capture_output=True
        )
    assert describe(ours) == describe(sample_tree)


async def make_rootfs(store_root: Path, data: bytes) -> Path:
    async with open_store(store_root) as store:
        [image] = await import_bytes(store, data, "sample")
        [disk] = await store.layer_disks(image)
        return disk
