"""Hostile archives: refused or made harmless, with nothing outside the store and nothing left."""

import gzip
import json
import os
from pathlib import Path

import pytest
import zstandard

from app.core.errors import CorruptData, InvalidArgument, SlipwayError, Unsupported
from app.oci import compression
from app.oci.limits import ImportLimits
from tests.integration.image_lab import files_below, import_bytes, open_store
from tests.integration.squashfs_tree import list_disk, read_file
from tests.unit.oci.archives import (
    END,
    Item,
    OciLayout,
    descriptor,
    directory,
    docker_archive,
    hard_link,
    hexdigest,
    image_config,
    make_tar,
    pax_record,
    raw_entry,
    sha256,
    stream,
    symlink,
)

GOOD = make_tar(Item("good", b"1"))
OTHER = make_tar(Item("other", b"2"))
LIMITS = ImportLimits(layer_entries=1000, layer_bytes=16 << 20, metadata_bytes=100_000)


def lying_docker(is_old_form: bool) -> bytes:
    """The configuration promises another layer."""
    return docker_archive([OTHER], config=image_config([GOOD]), is_old_form=is_old_form)


def lying_oci(what: str) -> bytes:
    layout = OciLayout()
    layout.name(layout.image([GOOD], blobs=[gzip.compress(GOOD, mtime=0)]), "app")
    blob = hexdigest(gzip.compress(GOOD, mtime=0))
    if what == "blob":  # same length, other bytes
        packed = bytearray(layout.blobs[blob])
        packed[4] ^= 1  # the time in gzip's header: unpacks to the same
        layout.blobs[blob] = bytes(packed)
    elif what == "size":
        layout.blobs[blob] += bytes(7)
    return layout.archive()


def lying_diff_id() -> bytes:
    layout = OciLayout()
    config = image_config([OTHER])
    layout.name(layout.image([OTHER], blobs=[gzip.compress(GOOD)], config=config), "app")
    return layout.archive()


def with_layers(count: int) -> bytes:
    config = image_config([GOOD] * count)
    manifest = [{"Config": "c", "RepoTags": ["a:1"], "Layers": ["l"] * count}]
    return make_tar(
        Item("l", GOOD), Item("c", config), Item("manifest.json", json.dumps(manifest).encode())
    )


def config_bomb() -> bytes:
    return docker_archive([GOOD], config=image_config([GOOD], padding="x" * 200_000))


def deep_json() -> bytes:
    return make_tar(Item("oci-layout", b"{}"), Item("index.json", b'{"a":' * 20_000))


def zip_bomb() -> bytes:
    return gzip.compress(make_tar(Item("zeros", bytes(32 << 20))), 9)


def nested_bomb() -> bytes:
    layout = OciLayout()
    bomb = make_tar(Item("zeros", bytes(32 << 20)))
    layout.name(layout.image([bomb], blobs=[zstandard.compress(bomb)]), "bomb")
    return layout.archive()


def sparse_bomb() -> bytes:
    records = pax_record(b"GNU.sparse.major", b"1") + pax_record(b"GNU.sparse.minor", b"0")
    records += pax_record(b"GNU.sparse.realsize", b"%d" % (1 << 50))
    return raw_entry(b"x", records, b"x") + raw_entry(b"f", b"0\n".ljust(512, b"\0")) + END


REFUSED: dict[str, tuple[bytes, type[SlipwayError], str]] = {
    "traversal": (make_tar(Item("../../evil", b"x")), InvalidArgument, "leaves its directory"),
    "traversal-absolute": (make_tar(Item("/../evil")), InvalidArgument, "leaves its directory"),
    "write-through-link": (
        make_tar(symlink("l", "/tmp"), Item("l/evil", b"x")),
        InvalidArgument,
        "below b'l', which is a symlink",
    ),
    "hard-link-out": (make_tar(hard_link("l", "../../etc/shadow")), InvalidArgument, "leaves"),
    "hard-link-nowhere": (make_tar(hard_link("l", "/etc/shadow")), InvalidArgument, "not before"),
    "entry-bomb": (
        make_tar(*(Item(f"f{n}") for n in range(1001))),
        InvalidArgument,
        "more than 1,000 entries",
    ),
    "gzip-bomb": (zip_bomb(), InvalidArgument, "more than 16,777,216 bytes"),
    "nested-bomb": (nested_bomb(), InvalidArgument, "more than 16,777,216 bytes"),
    "sparse-bomb": (sparse_bomb(), InvalidArgument, "unpacks to more than"),
    "truncated": (make_tar(Item("f", bytes(50_000)))[:30_000], CorruptData, "ends too early"),
    "truncated-at-entry": (raw_entry(b"f", b"1"), CorruptData, "end mark"),
    "truncated-gzip": (gzip.compress(os.urandom(9) + GOOD)[:60], CorruptData, "early|checksum"),
    "truncated-zstd": (zstandard.compress(GOOD)[:30], CorruptData, "zstd|end mark|early"),
    "rubbish": (os.urandom(5000), CorruptData, "neither a tar"),
    "rubbish-in-gzip": (gzip.compress(b"hello" * 1000), CorruptData, "checksum"),
    "lying-diff-id": (lying_docker(is_old_form=False), CorruptData, "not what its diff_id says"),
    "lying-diff-id-old": (lying_docker(is_old_form=True), CorruptData, "not what its diff_id says"),
    "lying-diff-id-oci": (lying_diff_id(), CorruptData, "not what its diff_id says"),
    "lying-digest": (lying_oci("blob"), CorruptData, "not what its digest says"),
    "lying-size": (lying_oci("size"), CorruptData, "not as long as"),
    "10000-layers": (with_layers(10_000), InvalidArgument, "bytes; at most|10,000 layers"),
    "128-layers": (with_layers(128), InvalidArgument, "128 layers; at most 127"),
    "huge-config": (config_bomb(), InvalidArgument, "at most 100,000 are read"),
    "deep-json": (deep_json(), CorruptData, "is not JSON"),
    "windows": (
        docker_archive([GOOD], config=image_config([GOOD], os="windows")),
        Unsupported,
        "is for 'windows'",
    ),
    "bad-name": (docker_archive([GOOD], ("../../x",)), InvalidArgument, "invalid reference"),
    "empty": (END, InvalidArgument, "empty archive"),
}


@pytest.mark.parametrize(("data", "error", "message"), REFUSED.values(), ids=REFUSED)
async def test_hostile_archive_is_refused(
    tmp_path: Path, data: bytes, error: type[SlipwayError], message: str
) -> None:
    (tmp_path / "outside").write_bytes(b"untouched")
    async with open_store(tmp_path / "store", LIMITS) as store:
        with pytest.raises(error, match=message):
            await import_bytes(store, data, None)
        assert store.list_images() == []
        assert list((tmp_path / "store/ingest").iterdir()) == []
    assert files_below(tmp_path) == {"outside", "store/oci-layout"}
    assert (tmp_path / "outside").read_bytes() == b"untouched"


async def test_hostile_layer_in_an_image_names_the_layer(tmp_path: Path) -> None:
    bad = make_tar(Item("../evil"))
    async with open_store(tmp_path) as store:
        with pytest.raises(
            InvalidArgument, match=rf"layer 2 of 2 \({hexdigest(bad)[:12]}\): entry"
        ):
            await import_bytes(store, docker_archive([GOOD, bad]))


async def test_hostile_bomb_is_stopped_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would unpack to 8 GiB is refused before it is unpacked."""
    huge = raw_entry(b"f", size=b"%011o\0" % (8 << 30))
    expanded_bytes = 0
    real = compression._FrameSource.read

    def counted(source: compression._FrameSource, size: int) -> bytes:
        nonlocal expanded_bytes
        data = real(source, size)
        expanded_bytes += len(data)
        return data

    monkeypatch.setattr(compression._FrameSource, "read", counted)
    async with open_store(tmp_path, LIMITS) as store:
        data = gzip.compress(huge) + gzip.compress(bytes(1 << 20), 9) * 200
        with pytest.raises(InvalidArgument, match="unpacks to more than"):
            await store.import_stream(stream(data), reference="x")
    assert 0 < expanded_bytes < 4 << 20
    assert files_below(tmp_path) == {"oci-layout"}


async def test_harmless_oddities_are_imported(tmp_path: Path) -> None:
    """Links out of the root, devices, odd names: fine inside a guest, and nothing follows them."""
    layer = make_tar(
        Item("/abs", b"1"),
        symlink("etc-link", "/etc"),
        symlink("up", "../../../../etc/shadow"),
        Item("sda", type=b"4", device=(8, 0), mode=0o666),
        Item("pipe", type=b"6"),
        Item("setuid", b"", mode=0o6755),
        Item("-rf *\n", b"2"),
        Item("a'b\"$(touch x)`touch y`;\\", b"3"),
        directory("t", mode=0o1777),
        Item("cap", b"", pax={"SCHILY.xattr.security.capability": "\x01\x00\x00\x02"}),
    )
    async with open_store(tmp_path / "store") as store:
        [image] = await import_bytes(store, layer, "odd")
        [disk] = await store.layer_disks(image)
    tree = list_disk(disk)
    assert tree["/abs"] == "-rw-r--r-- 0/0 1"
    assert tree["/etc-link"] == "lrwxrwxrwx 0/0 4 -> /etc"
    assert tree["/up"] == "lrwxrwxrwx 0/0 22 -> ../../../../etc/shadow"
    assert tree["/sda"] == "brw-rw-rw- 0/0 8,0"
    assert tree["/setuid"] == "-rwsr-sr-x 0/0 0"
    assert tree["/t"] == "drwxrwxrwt 0/0"
    assert read_file(disk, "abs") == b"1"
    assert {name.partition("/")[0] for name in files_below(tmp_path)} == {"store"}


async def test_hostile_store_names_are_only_hex(tmp_path: Path) -> None:
    """Nothing an archive says becomes a path."""
    layout = OciLayout()
    manifest = json.loads(layout.image([GOOD]))
    manifest["layers"][0]["digest"] = "sha256:../../../../outside"
    layout.name(layout.add(json.dumps(manifest).encode()), "app")
    async with open_store(tmp_path / "store") as store:
        with pytest.raises(CorruptData, match="is not sha256"):
            await import_bytes(store, layout.archive())
    index = {"manifests": [{**descriptor(GOOD, "x"), "digest": sha256(b"")[:-1] + "/"}]}
    data = make_tar(Item("oci-layout", b"{}"), Item("index.json", json.dumps(index).encode()))
    async with open_store(tmp_path / "store") as store:
        with pytest.raises(CorruptData, match="is not sha256"):
            await store.import_stream(stream(data))
    assert files_below(tmp_path) == {"store/oci-layout"}
