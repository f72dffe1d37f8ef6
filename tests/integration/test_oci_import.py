"""Imports of every form into a real store, with real disks."""

import gzip
import json
import lzma
from pathlib import Path

import pytest
import zstandard

from app.core.errors import InvalidArgument
from app.domain.image import ImageConfig, ImportProgress, ImportStage
from app.oci.limits import ImportLimits
from tests.integration.image_lab import files_below, import_bytes, open_store
from tests.integration.squashfs_tree import list_disk, read_file
from tests.unit.oci.archives import (
    Item,
    OciLayout,
    directory,
    docker_archive,
    hard_link,
    hexdigest,
    image_config,
    make_tar,
    sha256,
    stream,
    symlink,
)

BASE = make_tar(
    directory("./", mode=0o755),
    directory("bin"),
    Item("bin/tool", b"tool 1", mode=0o755),
    hard_link("bin/again", "bin/tool"),
    directory("etc"),
    Item("etc/old", b"old"),
    symlink("etc/link", "old"),
    Item("null", type=b"3", device=(1, 3), mode=0o666),
)
TOP = make_tar(
    directory("etc"), Item("etc/.wh.old"), Item("etc/new", b"new"), Item("bin/.wh..wh..opq")
)


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def oci_archive(blobs: list[bytes], layers: list[bytes]) -> bytes:
    layout = OciLayout()
    layout.name(layout.image(layers, blobs=blobs), "app:1")
    return layout.archive()


ARCHIVES = {
    "docker": docker_archive([BASE, TOP]),
    "docker-manifest-first": docker_archive([BASE, TOP], manifest_first=True),
    "docker-old": docker_archive([BASE, TOP], is_old_form=True),
    "docker-gzip": gz(docker_archive([BASE, TOP])),
    "docker-zstd": zstandard.compress(docker_archive([BASE, TOP])),
    "docker-xz": lzma.compress(docker_archive([BASE, TOP])),
    "oci": oci_archive([BASE, TOP], [BASE, TOP]),
    "oci-gzip-layers": oci_archive([gz(BASE), gz(TOP)], [BASE, TOP]),
    "oci-zstd-layers": oci_archive([zstandard.compress(BASE), gz(TOP)], [BASE, TOP]),
}


@pytest.mark.parametrize("data", ARCHIVES.values(), ids=ARCHIVES)
async def test_import_of_every_form_gives_the_same_image(tmp_path: Path, data: bytes) -> None:
    async with open_store(tmp_path / "store") as store:
        [image] = await import_bytes(store, data)
        assert image.id == sha256(image_config([BASE, TOP]))
        assert image.display_name == "app:1"
        assert image.config.cmd == ("sh",)
        assert image.diff_ids == (sha256(BASE), sha256(TOP))
        assert image.size_bytes == len(BASE) + len(TOP)
        low, high = await store.layer_disks(image)
        assert list_disk(low) == {
            "": "drwxr-xr-x 0/0",
            "/bin": "drwxr-xr-x 0/0",
            "/bin/again": "-rwxr-xr-x 0/0 6",
            "/bin/tool": "-rwxr-xr-x 0/0 6",
            "/etc": "drwxr-xr-x 0/0",
            "/etc/link": "lrwxrwxrwx 0/0 3 -> old",
            "/etc/old": "-rw-r--r-- 0/0 3",
            "/null": "crw-rw-rw- 0/0 1,3",
        }
        assert read_file(low, "bin/again") == b"tool 1"
        assert list_disk(high)["/etc/old"] == "c--------- 0/0 0,0"
        assert read_file(high, "etc/new") == b"new"
        assert low.stat().st_size % 4096 == high.stat().st_size % 4096 == 0
        assert not list((tmp_path / "store/ingest").iterdir())


@pytest.mark.parametrize(
    "pack", [bytes, gz, zstandard.compress, lzma.compress], ids=["plain", "gzip", "zstd", "xz"]
)
async def test_import_of_a_root_filesystem(tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    async with open_store(tmp_path / "store") as store:
        config = ImageConfig(cmd=("sh",), labels={"a": "b"})
        [image] = await store.import_stream(
            stream(pack(BASE)), reference="team/root:2", config=config
        )
        assert image.display_name == "team/root:2"
        assert image.config == config
        assert image.diff_ids == (sha256(BASE),)
        assert image.created is not None
        [disk] = await store.layer_disks(image)
        assert "/bin/tool" in list_disk(disk)
        assert store.get(image.short_id) == image


async def test_import_makes_an_oci_layout(tmp_path: Path) -> None:
    async with open_store(tmp_path / "store") as store:
        [image] = await import_bytes(store, ARCHIVES["docker"])
    root = tmp_path / "store"
    assert json.loads((root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    [entry] = json.loads((root / "index.json").read_text())["manifests"]
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "docker.io/library/app:1"
    for blob in (root / "blobs/sha256").iterdir():
        assert hexdigest(blob.read_bytes()) == blob.name
    manifest = json.loads((root / "blobs/sha256" / entry["digest"][7:]).read_text())
    assert manifest["config"]["digest"] == image.id
    assert [layer["digest"] for layer in manifest["layers"]] == [sha256(BASE), sha256(TOP)]


async def test_import_keeps_an_oci_manifest_byte_for_byte(tmp_path: Path) -> None:
    layout = OciLayout()
    manifest = layout.image([BASE], blobs=[gz(BASE)], layer_type="x.tar+gzip")
    layout.name(manifest, "app:1")
    async with open_store(tmp_path / "store") as store:
        [image] = await import_bytes(store, layout.archive())
        assert image.manifest_digest == sha256(manifest)
        assert store.get(f"app@{sha256(manifest)}") == image


async def test_import_reference_replaces_the_archives_names(tmp_path: Path) -> None:
    async with open_store(tmp_path / "store") as store:
        [image] = await import_bytes(store, ARCHIVES["docker"], "mine:3")
        assert [item.familiar for item in image.references] == ["mine:3"]


async def test_import_reference_for_several_images_is_refused(tmp_path: Path) -> None:
    layout = OciLayout()
    for layer in (BASE, TOP):
        layout.name(layout.image([layer]), f"app:{len(layer)}")
    layout.name(layout.image([BASE, TOP]), "app:both")
    async with open_store(tmp_path / "store") as store:
        with pytest.raises(InvalidArgument, match="holds 3 images"):
            await import_bytes(store, layout.archive(), "mine")
        assert store.list_images() == []
        assert len(await import_bytes(store, layout.archive())) == 3
        assert len(list((tmp_path / "store/layers").iterdir())) == 2


@pytest.mark.parametrize("reference", ["Bad Name", f"app@{sha256(b'')}", ""])
async def test_import_bad_reference_is_refused_before_reading(
    tmp_path: Path, reference: str
) -> None:
    async with open_store(tmp_path / "store") as store:
        with pytest.raises(InvalidArgument):
            await import_bytes(store, ARCHIVES["docker"], reference)


async def test_import_moves_a_name_that_another_image_has(tmp_path: Path) -> None:
    async with open_store(tmp_path / "store") as store:
        [old] = await import_bytes(store, docker_archive([BASE]))
        [new] = await import_bytes(store, docker_archive([TOP]))
        assert store.get("app:1") == new
        assert store.get(old.id).references == ()


async def test_import_again_changes_nothing(tmp_path: Path) -> None:
    async with open_store(tmp_path / "store") as store:
        [first] = await import_bytes(store, ARCHIVES["docker"])
        before = files_below(tmp_path / "store")
        disk = (await store.layer_disks(first))[0].stat()
        [second] = await import_bytes(store, ARCHIVES["oci-gzip-layers"])
        assert second == first
        assert files_below(tmp_path / "store") == before
        assert (await store.layer_disks(first))[0].stat().st_mtime_ns == disk.st_mtime_ns


async def test_import_disks_are_the_same_bytes_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also another day, in another environment, with duplicates and many small files."""
    names = (f"d{number % 7}/f{number}" for number in range(300))
    content = (b"same" * 50_000, b"short", bytes(200_000), b"dup" * 1000)
    layer = make_tar(*(Item(name, content[n % 4]) for n, name in enumerate(names)))
    contents: list[bytes] = []
    for name in ("one", "two", "three"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(len(contents)))
        async with open_store(tmp_path / name) as store:
            [image] = await import_bytes(store, layer, "x")
            [disk] = await store.layer_disks(image)
            contents.append(disk.read_bytes())
    assert contents[0] == contents[1] == contents[2]
    assert int.from_bytes(contents[0][8:12], "little") == 1_700_000_000  # squashfs' own time


async def test_import_reports_progress(tmp_path: Path) -> None:
    seen: list[ImportProgress] = []
    big = make_tar(Item("big", bytes(20_000_000)))
    async with open_store(tmp_path / "store") as store:
        await store.import_stream(stream(big), reference="x", progress=seen.append)
    stages = list(dict.fromkeys(item.stage for item in seen))
    assert stages == [ImportStage.RECEIVING, ImportStage.VERIFYING, ImportStage.CONVERTING]
    for stage in stages:
        counts = [item.done_bytes for item in seen if item.stage is stage]
        assert counts == sorted(counts)
    assert seen[-1].total_bytes == len(big)


async def test_import_of_an_empty_layer(tmp_path: Path) -> None:
    empty = bytes(1024)
    async with open_store(tmp_path / "store") as store:
        [image] = await import_bytes(store, docker_archive([BASE, empty, empty]))
        disks = await store.layer_disks(image)
        assert len(disks) == len(image.mounted_diff_ids) == 2
        assert list(list_disk(disks[1])) == [""]


async def test_import_of_127_layers(tmp_path: Path) -> None:
    layers = [make_tar(Item(f"f{number}", b"")) for number in range(127)]
    async with open_store(tmp_path / "store") as store:
        [image] = await import_bytes(store, docker_archive(layers))
        assert len(await store.layer_disks(image)) == 127


async def test_import_of_a_huge_sparse_file_costs_no_space(tmp_path: Path) -> None:
    packed = zstandard.compress(make_tar(Item("big", bytes(64 << 20))))
    async with open_store(tmp_path / "store", ImportLimits(layer_bytes=65 << 20)) as store:
        [image] = await import_bytes(store, packed, "sparse")
        assert await store.used_bytes() < 1 << 20
        [disk] = await store.layer_disks(image)
        assert list_disk(disk)["/big"].endswith(f" {64 << 20}")
