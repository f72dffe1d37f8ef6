"""Load order from the modules themselves."""

import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from app.core.errors import CorruptData, InvalidArgument
from app.guest.modules import ModuleTree
from tests.unit.guest.kernel_package import RELEASE, kernel_module, module_tree


@pytest.fixture
def tree(tmp_path: Path) -> ModuleTree:
    return ModuleTree(
        module_tree(
            tmp_path,
            {
                "kernel/virtio.ko": kernel_module(),
                "kernel/virtio-ring.ko": kernel_module("virtio"),
                "kernel/virtio_pci.ko": kernel_module("virtio-ring,virtio"),
                "kernel/fs/ext4.ko": kernel_module("jbd2", ["pre: crc32c_generic absent post: x"]),
                "kernel/fs/jbd2.ko": kernel_module(),
                "kernel/crypto/crc32c_generic.ko": kernel_module(),
                "kernel/x.ko": kernel_module(),
                "kernel/broken.ko": kernel_module("missing"),
                "kernel/a.ko": kernel_module("b"),
                "kernel/b.ko": kernel_module("a"),
            },
            builtin=["kernel/net/core.ko", "kernel/fs/over-lay.ko"],
        )
    )


def names(tree: ModuleTree, *wanted: str) -> list[str]:
    return [module.name for module in tree.load_order(wanted)]


def test_dependencies_come_first_and_once(tree: ModuleTree) -> None:
    assert names(tree, "virtio_pci", "virtio") == ["virtio", "virtio_ring", "virtio_pci"]


def test_hyphen_and_underscore_are_one(tree: ModuleTree) -> None:
    assert names(tree, "virtio-pci") == names(tree, "virtio_pci")


def test_soft_dependency_is_taken_if_there(tree: ModuleTree) -> None:
    assert names(tree, "ext4") == ["crc32c_generic", "jbd2", "ext4"]


def test_built_in_module_needs_nothing(tree: ModuleTree) -> None:
    assert names(tree, "core", "over_lay") == []


def test_path_is_below_the_release(tree: ModuleTree) -> None:
    (module,) = tree.load_order(["virtio"])
    assert module.path == f"lib/modules/{RELEASE}/kernel/virtio.ko"


def test_unknown_module_is_refused(tree: ModuleTree) -> None:
    with pytest.raises(InvalidArgument, match=f"kernel {RELEASE} has no module squashfs"):
        tree.load_order(["squashfs"])


def test_optional_module_may_be_missing(tree: ModuleTree) -> None:
    assert names(tree, "-squashfs", "-x", "-virtio-pci") == [
        "x",
        "virtio",
        "virtio_ring",
        "virtio_pci",
    ]


def test_missing_dependency_names_who_needs_it(tree: ModuleTree) -> None:
    with pytest.raises(InvalidArgument, match=r"no module missing \(needed by broken\)"):
        tree.load_order(["broken"])


def test_circle_is_refused(tree: ModuleTree) -> None:
    with pytest.raises(InvalidArgument, match="a -> b -> a"):
        tree.load_order(["a"])


@pytest.mark.parametrize(
    ("suffix", "packed"),
    [
        ("", kernel_module()),
        (".xz", lzma.compress(kernel_module())),
        (".gz", gzip.compress(kernel_module())),
        (".zst", zstandard.compress(kernel_module())),
    ],
)
def test_compressed_module_is_unpacked(tmp_path: Path, suffix: str, packed: bytes) -> None:
    tree = ModuleTree(module_tree(tmp_path, {f"kernel/m.ko{suffix}": packed}))
    (module,) = tree.load_order(["m"])
    assert module.path.endswith("/kernel/m.ko")
    assert module.data == kernel_module()


def test_signature_is_kept(tmp_path: Path) -> None:
    signed = kernel_module() + b"signature~Module signature appended~\n"
    tree = ModuleTree(module_tree(tmp_path, {"kernel/m.ko": signed}))
    assert tree.load_order(["m"])[0].data == signed


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("m.ko", b""),
        ("m.ko", b"\x7fELF\x01\x01" + bytes(100)),
        ("m.ko", kernel_module()[:-100]),
        ("m.ko.xz", b"no xz"),
        ("m.ko.zst", b"no zstd"),
        ("m.ko.gz", b"\x1f\x8b\x08"),
    ],
)
def test_damaged_module_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    tree = ModuleTree(module_tree(tmp_path, {f"kernel/{name}": data}))
    with pytest.raises(CorruptData):
        tree.load_order(["m"])


def test_tree_without_modules_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptData, match="has no modules"):
        ModuleTree(module_tree(tmp_path, {}))
