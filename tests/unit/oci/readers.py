"""Short ways to run the code under test over bytes."""

import io
import tarfile
from dataclasses import dataclass

from app.oci.layer_filter import filter_layer
from app.oci.layer_index import LayerIndex
from app.oci.limits import ImportLimits
from app.oci.tar_reader import EntryKind, TarEntry, TarReader


@dataclass(frozen=True)
class Read:
    """An entry with its content."""

    entry: TarEntry
    data: bytes


def read_tar(data: bytes, *, needs_end_mark: bool = False) -> list[Read]:
    """Everything in a tar, by our reader."""
    reader = TarReader(io.BytesIO(data), what="the test", needs_end_mark=needs_end_mark)
    return [Read(entry, b"".join(reader.content())) for entry in reader]


def index_layer(data: bytes, limits: ImportLimits | None = None) -> LayerIndex:
    """First pass over a layer."""
    index = LayerIndex(what="layer 1", limits=limits or ImportLimits())
    for entry in TarReader(io.BytesIO(data), what="layer 1"):
        index.add(entry)
    return index


def filter_bytes(data: bytes) -> bytes:
    """Both passes over a layer."""
    index = index_layer(data)
    return b"".join(filter_layer(TarReader(io.BytesIO(data), what="layer 1"), index))


@dataclass(frozen=True)
class Node:
    """A name in the filtered tar."""

    type: bytes
    data: bytes
    info: tarfile.TarInfo


def filtered_tree(data: bytes) -> dict[str, Node]:
    """The filtered layer, read back by the standard library; each name once."""
    tree: dict[str, Node] = {}
    with tarfile.open(fileobj=io.BytesIO(filter_bytes(data)), errorlevel=2) as tar:
        for info in tar:
            assert info.name not in tree, f"{info.name} twice"
            file = tar.extractfile(info) if info.isreg() else None
            tree[info.name] = Node(info.type, file.read() if file else b"", info)
    assert {name.rpartition("/")[0] for name in tree} <= {"", *tree}, "a parent is missing"
    return tree


__all__ = [
    "EntryKind", "Node", "Read", "filter_bytes", "filtered_tree", "index_layer", "read_tar",
]  # fmt: skip
