"""The store's promises: all or nothing, over errors, cancellation, crashes and concurrency."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.core.errors import Conflict, CorruptData, ResourceExhausted, SlipwayError
from app.domain.image import ImageNotFound, ImageUser
from app.oci import conversion
from app.oci.limits import ImportLimits
from tests.integration.image_lab import files_below, import_bytes, open_store
from tests.integration.squashfs_tree import list_disk
from tests.unit.oci.archives import Item, docker_archive, make_tar, sha256, stream

BASE = make_tar(Item("base", b"1" * 100_000))
ONE = make_tar(Item("one", b"1"))
TWO = make_tar(Item("two", b"2"))
EMPTY = {"oci-layout"}


async def test_store_survives_reopening(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await import_bytes(store, docker_archive([BASE, ONE], ("app:1", "app:2")))
        await import_bytes(store, docker_archive([BASE, TWO], ("app:2",)))
        before = store.list_images()
    files = files_below(tmp_path)
    async with open_store(tmp_path) as store:
        assert store.list_images() == before
        assert [item.familiar for item in store.get("app:1").references] == ["app:1"]
    assert files_below(tmp_path) == files


async def test_store_removes_what_only_that_image_had(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        [one] = await import_bytes(store, docker_archive([BASE, ONE], ("app:1",)))
        [two] = await import_bytes(store, docker_archive([BASE, TWO], ("app:2",)))
        removal = await store.remove("app:1")
        assert removal.untagged == ("app:1",)
        assert removal.deleted == (one.id, sha256(ONE))
        assert removal.freed_bytes > 0
        assert len(await store.layer_disks(two)) == 2
        removal = await store.remove(two.short_id)
        assert removal.deleted == (two.id, sha256(TWO), sha256(BASE))
    assert files_below(tmp_path) == {*EMPTY, "index.json"}


async def test_store_tags_and_untags(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        [image] = await import_bytes(store, ONE, "app:1")
        tagged = await store.tag("app:1", "other:9")
        assert [item.familiar for item in tagged.references] == ["app:1", "other:9"]
        assert (await store.remove("app:1")).deleted == ()
        assert (await store.untag("other:9")).references == ()
        with pytest.raises(ImageNotFound, match="No such image: app:1"):
            store.get("app:1")
        assert store.get(image.id).references == ()
        assert (await store.remove(image.id)).deleted == (image.id, sha256(ONE))


async def test_store_keeps_images_of_containers(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        [image] = await import_bytes(store, ONE, "app:1")
        user = ImageUser("c" * 64, image.id, is_running=False)
        with pytest.raises(Conflict, match=r"must force"):
            await store.remove("app:1", users=[user])
        removal = await store.remove("app:1", force=True, users=[user])
        assert (removal.untagged, removal.deleted) == (("app:1",), ())
        assert len(await store.layer_disks(image)) == 1
        assert (await store.remove(image.id)).deleted


async def test_store_lease_keeps_data_while_held(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await import_bytes(store, ONE, "app:1")
        async with store.lease("app:1") as image:
            assert (await store.remove("app:1")).deleted == ()
            assert len(await store.layer_disks(image)) == 1
        assert (await store.remove(image.id)).deleted
        with pytest.raises(ImageNotFound):
            await store.layer_disks(image)


async def test_store_makes_a_missing_disk_again(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        [image] = await import_bytes(store, ONE, "app:1")
        [disk] = await store.layer_disks(image)
        content = disk.read_bytes()
        disk.unlink()
        results = await asyncio.gather(*(store.layer_disks(image) for _ in range(4)))
        assert {paths[0].read_bytes() for paths in results} == {content}


async def test_store_notices_a_damaged_blob(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        [image] = await import_bytes(store, ONE, "app:1")
        [disk] = await store.layer_disks(image)
        disk.unlink()
        blob = tmp_path / "blobs/sha256" / image.diff_ids[0].removeprefix("sha256:")
        blob.write_bytes(blob.read_bytes().replace(b"1", b"2", 1))
        with pytest.raises(CorruptData):
            await store.layer_disks(image)
        blob.unlink()
        with pytest.raises(CorruptData, match="is missing from the store"):
            await store.layer_disks(image)
        assert not disk.exists()


async def test_store_leaves_out_a_damaged_image_and_deletes_nothing(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        [damaged] = await import_bytes(store, ONE, "app:1")
        await import_bytes(store, TWO, "app:2")
    (tmp_path / "blobs/sha256" / damaged.id.removeprefix("sha256:")).write_bytes(b"{}")
    files = files_below(tmp_path)
    async with open_store(tmp_path) as store:
        assert [image.display_name for image in store.list_images()] == ["app:2"]
        await store.tag("app:2", "app:3")
    assert files_below(tmp_path) == files
    names = json.loads((tmp_path / "index.json").read_text())["manifests"]
    assert len(names) == 3


async def test_store_refuses_a_broken_index(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await import_bytes(store, ONE, "app:1")
    (tmp_path / "index.json").write_text("{")
    files = files_below(tmp_path)
    with pytest.raises(CorruptData, match=r"index\.json is not JSON"):
        async with open_store(tmp_path):
            pass
    assert files_below(tmp_path) == files


async def test_store_clears_leftovers_of_a_crash(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await import_bytes(store, ONE, "app:1")
    files = files_below(tmp_path)
    (tmp_path / "ingest/abc").mkdir()
    (tmp_path / "ingest/abc/upload").write_bytes(b"x")
    (tmp_path / "blobs/sha256" / ("0" * 64)).write_bytes(b"x")
    (tmp_path / "layers" / ("0" * 64 + ".sqfs")).write_bytes(b"x")
    (tmp_path / ".index.json.tmp").write_bytes(b"x")
    async with open_store(tmp_path) as store:
        assert len(store.list_images()) == 1
    assert files_below(tmp_path) == files


def test_store_killed_at_any_moment_opens_clean(tmp_path: Path) -> None:
    """A process is killed at growing delays while it imports; the store is whole each time."""
    archive = tmp_path / "app.tar"
    archive.write_bytes(docker_archive([BASE, ONE, TWO]))
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from tests.integration.image_lab import import_bytes, open_store\n"
        "async def main():\n"
        "    async with open_store(Path(sys.argv[1])) as store:\n"
        "        print('open', flush=True)\n"
        "        await import_bytes(store, Path(sys.argv[2]).read_bytes())\n"
        "asyncio.run(main())\n"
    )
    for delay_ms in range(0, 200, 25):
        root = tmp_path / f"store{delay_ms}"
        command = [os.sys.executable, "-c", script, root, archive]  # type: ignore[attr-defined]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path.cwd()) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(delay_ms / 1000)
            except subprocess.TimeoutExpired:
                process.kill()
        asyncio.run(check_whole(root))


async def check_whole(root: Path) -> None:
    async with open_store(root) as store:
        images = store.list_images()
        for image in images:
            for disk in await store.layer_disks(image):
                assert list_disk(disk)
    expected = 1 + 1 + 1 + 3 + 3 if images else 1  # layout, index; manifest+config+layers; disks
    files = files_below(root)
    assert len(files) == (expected + 1 if images else len(files & {"oci-layout", "index.json"}))


async def test_store_import_cancelled_leaves_nothing(tmp_path: Path) -> None:
    """Cancelled at every stage: while receiving, verifying, converting."""
    data = docker_archive([make_tar(Item(f"f{n}", os.urandom(8_000_000))) for n in range(3)])
    async with open_store(tmp_path) as store:
        for stage in range(1, 9):
            reached = asyncio.Event()
            count = 0

            def progress(_: object, stage: int = stage, reached: asyncio.Event = reached) -> None:
                nonlocal count
                count += 1
                if count >= stage * 3:
                    reached.set()

            task = asyncio.ensure_future(store.import_stream(stream(data), progress=progress))
            await asyncio.wait_for(reached.wait(), 15)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert files_below(tmp_path) <= {*EMPTY, "index.json"}
            assert list((tmp_path / "ingest").iterdir()) == []
            assert store.list_images() == []


async def test_store_broken_upload_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield BASE[:5000]
        raise ConnectionResetError("client went away")

    async with open_store(tmp_path) as store:
        with pytest.raises(SlipwayError, match="client went away"):
            await store.import_stream(broken(), reference="x")
    assert files_below(tmp_path) == EMPTY


async def test_store_concurrent_imports_convert_a_layer_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversions: list[Path] = []
    real = conversion._run_sqfstar

    def counted(*args: object) -> None:
        conversions.append(args[2])  # type: ignore[arg-type]
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(conversion, "_run_sqfstar", counted)
    archives = [
        docker_archive([BASE, make_tar(Item(f"f{n}", b""))], (f"app:{n}",)) for n in range(4)
    ]
    async with open_store(tmp_path) as store:
        await asyncio.gather(*(import_bytes(store, data) for data in archives))
        assert len(store.list_images()) == 4
    assert len(conversions) == 5


async def test_store_failed_import_spares_a_running_one(tmp_path: Path) -> None:
    good = docker_archive([BASE, ONE], ("good:1",))
    bad = docker_archive([BASE, make_tar(Item("../evil", b""))], ("bad:1",))
    async with open_store(tmp_path) as store:
        results = await asyncio.gather(
            *(import_bytes(store, data) for data in (bad, good, bad, good)), return_exceptions=True
        )
        assert [isinstance(result, SlipwayError) for result in results] == [True, False] * 2
        assert len(await store.layer_disks(store.get("good:1"))) == 2
    assert len(files_below(tmp_path)) == 2 + 4 + 2


async def test_store_keeps_disk_space_in_reserve(tmp_path: Path) -> None:
    async with open_store(tmp_path, ImportLimits(reserve_bytes=1 << 60)) as store:
        with pytest.raises(ResourceExhausted):
            await import_bytes(store, ONE, "x")
    assert files_below(tmp_path) == EMPTY


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 12 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", path], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("mounting a small filesystem needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("size_mib", [4, 5, 6, 8, 11, 13])
async def test_store_full_disk_leaves_nothing(small_disk: Path, size_mib: int) -> None:
    """Full while receiving, copying or converting: the same error, and an empty store."""
    data = docker_archive([make_tar(Item("big", os.urandom(size_mib << 20)))])
    async with open_store(small_disk, ImportLimits(reserve_bytes=0)) as store:
        with pytest.raises(ResourceExhausted, match="no space left"):
            await import_bytes(store, data)
        assert files_below(small_disk) == EMPTY
        await import_bytes(store, docker_archive([ONE]))
