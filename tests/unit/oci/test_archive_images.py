"""What image archives say: all forms, any order, and lies."""

import io
import json

import pytest

from app.core.errors import CorruptData, InvalidArgument, SlipwayError, Unsupported
from app.oci.archive import ArchiveIndex, index_archive
from app.oci.archive_images import ArchiveImage, read_images
from app.oci.limits import ImportLimits
from app.oci.streams import CancelToken, FileRange
from tests.unit.oci.archives import (
    OCI,
    Item,
    OciLayout,
    bytes_id,
    descriptor,
    docker_archive,
    hard_link,
    hexdigest,
    image_config,
    make_tar,
    sha256,
    symlink,
)

LAYERS = [make_tar(Item("a", b"1")), make_tar(Item("b", b"2"))]


def open_archive(data: bytes, limits: ImportLimits | None = None) -> ArchiveIndex:
    file = io.BytesIO(data)
    return index_archive(
        FileRange(file, 0, len(data)), file, limits=limits or ImportLimits(), token=CancelToken()
    )


def read(data: bytes, limits: ImportLimits | None = None) -> list[ArchiveImage]:
    index = open_archive(data, limits)
    assert index.holds_images
    return read_images(index, architecture="amd64")


def layer_bytes(data: bytes, image: ArchiveImage) -> list[bytes]:
    return [
        data[layer.member.offset : layer.member.offset + layer.member.size_bytes]
        for layer in image.layers
    ]


@pytest.mark.parametrize("manifest_first", [False, True])
@pytest.mark.parametrize("is_old_form", [False, True])
def test_docker_archive_is_read(is_old_form: bool, manifest_first: bool) -> None:
    data = docker_archive(
        LAYERS,
        ("app:1", "reg.example:5000/x/app:2"),
        is_old_form=is_old_form,
        manifest_first=manifest_first,
    )
    [image] = read(data)
    assert [str(item) for item in image.references] == [
        "docker.io/library/app:1",
        "reg.example:5000/x/app:2",
    ]
    assert str(image.id) == sha256(image_config(LAYERS))
    assert layer_bytes(data, image) == LAYERS
    assert image.manifest is None
    assert (image.layers[0].blob_digest is None) is is_old_form


def test_docker_archive_layers_may_be_links() -> None:
    config = image_config([LAYERS[0], LAYERS[0]])
    manifest = json.dumps(
        [{"Config": "c.json", "RepoTags": None, "Layers": ["one/layer.tar", "two/layer.tar"]}]
    )
    data = make_tar(
        symlink("one/layer.tar", "../two/layer.tar"),
        Item("real/layer.tar", LAYERS[0]),
        hard_link("two/layer.tar", "real/layer.tar"),
        Item("c.json", config),
        Item("manifest.json", manifest.encode()),
    )
    [image] = read(data)
    assert layer_bytes(data, image) == [LAYERS[0], LAYERS[0]]
    assert image.references == ()


def test_oci_archive_is_read() -> None:
    layout = OciLayout()
    manifest = layout.image(LAYERS)
    layout.name(manifest, "team/app:v1")
    data = layout.archive()
    [image] = read(data)
    assert [str(item) for item in image.references] == ["docker.io/team/app:v1"]
    assert image.manifest == manifest
    assert layer_bytes(data, image) == LAYERS


def test_oci_archive_with_docker_names() -> None:
    layout = OciLayout()
    manifest = layout.image(LAYERS)
    names = {
        "io.containerd.image.name": "docker.io/library/app:1",
        "org.opencontainers.image.ref.name": "1",
    }
    layout.name(manifest, annotations=names)
    docker = [
        {
            "Config": f"blobs/sha256/{hexdigest(image_config(LAYERS))}",
            "RepoTags": ["app:1", "app:2"],
            "Layers": [f"blobs/sha256/{hexdigest(layer)}" for layer in LAYERS],
        }
    ]
    [image] = read(layout.archive(Item("manifest.json", json.dumps(docker).encode())))
    assert [item.familiar for item in image.references] == ["app:1", "app:2"]
    assert image.manifest == manifest


def test_oci_archive_of_several_platforms() -> None:
    layout = OciLayout()
    mine = layout.image(LAYERS)
    theirs = layout.image(LAYERS, config=image_config(LAYERS, architecture="arm64"))
    kind = f"{OCI}manifest.v1+json"
    index = json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [
                descriptor(theirs, kind, platform={"os": "linux", "architecture": "arm64"}),
                descriptor(mine, kind, platform={"os": "linux", "architecture": "amd64"}),
                descriptor(b"?", kind, platform={"os": "unknown", "architecture": "unknown"}),
            ],
        }
    ).encode()
    layout.add(index)
    layout.manifests.append(descriptor(index, f"{OCI}index.v1+json"))
    [image] = read(layout.archive())
    assert image.document.architecture == "amd64"
    with pytest.raises(Unsupported, match="no image for linux/riscv64"):
        read_images(open_archive(layout.archive()), architecture="riscv64")


def test_oci_archive_index_cycle_ends() -> None:
    layout = OciLayout()
    inner = b'{"schemaVersion":2,"manifests":[]}'
    for _ in range(6):
        layout.add(inner)
        item = descriptor(inner, f"{OCI}index.v1+json")
        inner = json.dumps({"schemaVersion": 2, "manifests": [item]}).encode()
    layout.add(inner)
    layout.manifests.append(descriptor(inner, f"{OCI}index.v1+json"))
    with pytest.raises(CorruptData, match="nested too deeply"):
        read(layout.archive())


def broken_oci(change: str) -> bytes:
    layout = OciLayout()
    manifest = layout.image(LAYERS)
    layout.name(manifest, "app")
    name = {"manifest": hexdigest(manifest), "config": hexdigest(image_config(LAYERS))}[change]
    layout.blobs[name] = layout.blobs[name].replace(b"2", b"3")
    return layout.archive()


def oci_with(kind: str) -> bytes:
    layout = OciLayout()
    layout.manifests.append(descriptor(layout.add(b"{}"), kind))
    return layout.archive()


def docker_with(**item: object) -> bytes:
    values = {"Config": "c.json", "RepoTags": [], "Layers": ["l"], **item}
    return make_tar(
        Item("manifest.json", json.dumps([values]).encode()),
        Item("c.json", image_config(LAYERS[:1])),
        Item("l", LAYERS[0]),
        symlink("loop", "loop"),
        symlink("out", "../../../etc/passwd"),
        symlink("absolute", "/etc/passwd"),
        Item("0" * 64 + ".json", image_config(LAYERS[:1])),
    )


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (broken_oci("manifest"), CorruptData, "is not what its digest says"),
        (broken_oci("config"), CorruptData, "is not what its digest says"),
        (oci_with("application/x"), Unsupported, "which is no image"),
        (oci_with(f"{OCI}manifest.v1+json"), Unsupported, "schema version"),
        (OciLayout().archive(), CorruptData, "holds no image"),
        (docker_with(Config="missing"), CorruptData, "lacks 'missing'"),
        (docker_with(Config="0" * 64 + ".json"), CorruptData, "not what its digest says"),
        (docker_with(Config=5), CorruptData, "without Config"),
        (docker_with(Layers=["nope"]), CorruptData, "lacks the layer 'nope'"),
        (docker_with(Layers=["loop"]), CorruptData, "loop of links"),
        (docker_with(Layers=["out"]), CorruptData, "lacks the layer"),
        (docker_with(Layers=["absolute"]), CorruptData, "lacks the layer"),
        (docker_with(Layers=["../l", "/etc/passwd"]), CorruptData, "lacks the layer"),
        (docker_with(Layers=["l", "l"]), CorruptData, "lists 1 diff_ids"),
        (docker_with(Layers=["l"] * 10_000), InvalidArgument, "10,000 layers"),
        (docker_with(Layers=[]), InvalidArgument, "no layers"),
        (docker_with(Layers="l"), CorruptData, "Layers is not a list"),
        (docker_with(RepoTags=["Bad Name"]), InvalidArgument, "invalid reference"),
        (docker_with(Layers=["blobs/sha256/x"]), CorruptData, "blobs/sha256/x"),
    ],
    ids=bytes_id,
)
def test_archive_faults_are_refused(data: bytes, error: type[SlipwayError], message: str) -> None:
    with pytest.raises(error, match=message):
        read(data)


def test_archive_huge_json_is_refused() -> None:
    data = make_tar(Item("manifest.json", b"[" + b" " * 2000 + b"]"))
    with pytest.raises(InvalidArgument, match="at most 1,000 are read"):
        read(data, ImportLimits(metadata_bytes=1000))


def test_archive_of_too_many_images_is_refused() -> None:
    item = {"Config": "c.json", "RepoTags": [], "Layers": ["l"]}
    data = make_tar(Item("manifest.json", json.dumps([item] * 101).encode()))
    with pytest.raises(InvalidArgument, match="101 images"):
        read(data)


def test_archive_of_too_many_members_is_refused() -> None:
    data = docker_archive(LAYERS, manifest_first=False)
    with pytest.raises(InvalidArgument, match="more than 2 files"):
        read(data, ImportLimits(archive_members=2))


def test_archive_before_docker_1_10_is_refused() -> None:
    index = open_archive(make_tar(Item("abc/layer.tar", LAYERS[0]), Item("repositories", b"{}")))
    assert not index.holds_images
    with pytest.raises(Unsupported, match=r"older than 1\.10"):
        index.check_not_legacy()


@pytest.mark.parametrize(
    "items",
    [
        (Item("etc/passwd", b"x"), Item("bin/sh", b"")),
        (Item("etc/passwd", b"x"), Item("manifest.json", b"{}")),
        (Item("etc/passwd", b"x"), Item("manifest.json", b"not json")),
        (Item("etc/passwd", b"x"), Item("index.json", b"{}")),
        (Item("manifest.json", b'[{"name": "an app"}]'),),
    ],
)
def test_root_filesystems_are_no_image_archives(items: tuple[Item, ...]) -> None:
    assert not open_archive(make_tar(*items)).holds_images


def test_archive_truncated_is_refused() -> None:
    data = docker_archive(LAYERS)
    with pytest.raises(CorruptData, match=r"end mark|ends too early"):
        open_archive(data[: len(data) - 10240])
