import io
import json
import os
import socket
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from app.core.errors import Conflict, CorruptData, InvalidArgument, Unsupported
from app.services.backup import BackupScope, create_backup, read_label, restore_backup

MIB = 1024 * 1024


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory as an engine leaves it, its database in WAL mode and open elsewhere."""
    root = tmp_path / "data"
    (root / "images/blobs").mkdir(parents=True)
    (root / "images/index.json").write_text('{"manifests": []}')
    (root / "images/blobs/abc").write_bytes(b"layer")
    (root / "containers/one").mkdir(parents=True)
    (root / "v").mkdir()
    (root / "v/console").write_text("gone")
    with (root / "containers/one/scratch.img").open("wb") as disk:
        disk.seek(256 * MIB)
        disk.write(b"end")
    (root / "engine.lock").write_text("{}")
    root.chmod(0o700)
    return root


@pytest.fixture
def database(data_dir: Path) -> sqlite3.Connection:
    """An open database with a committed row that is still in its write-ahead log only."""
    connection = sqlite3.connect(data_dir / "slipway.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("INSERT INTO t VALUES (42)")
    return connection


def scope(data_dir: Path, in_use: dict[str, str] | None = None) -> BackupScope:
    return BackupScope(data_dir, frozenset({"v"}), in_use or {})


def save(data_dir: Path, target: Path, in_use: dict[str, str] | None = None) -> None:
    create_backup(
        scope(data_dir, in_use), target, slipway_version="1.2.3", leave_out_running=bool(in_use)
    )


def test_restored_directory_equals_the_saved_one(
    data_dir: Path, database: sqlite3.Connection, tmp_path: Path
) -> None:
    with closing(database):
        save(data_dir, tmp_path / "backup.tar")
    restored = tmp_path / "new/place"
    label = restore_backup(tmp_path / "backup.tar", restored)
    assert label.slipway_version == "1.2.3"
    assert (restored / "images/index.json").read_text() == '{"manifests": []}'
    assert (restored / "images/blobs/abc").read_bytes() == b"layer"
    assert restored.stat().st_mode & 0o777 == 0o700
    with closing(sqlite3.connect(restored / "slipway.db")) as copy:
        assert copy.execute("SELECT x FROM t").fetchall() == [(42,)]


def test_backup_holds_no_lock_run_directory_write_ahead_log_or_socket(
    data_dir: Path, database: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data_dir)
    with closing(database), closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind("channel")
        save(data_dir, tmp_path / "backup.tar")
    with tarfile.open(tmp_path / "backup.tar") as archive:
        names = {name.split("/")[0] for name in archive.getnames()}
    assert names == {"backup.json", "slipway.db", "images", "containers"}


def test_sparse_disk_stays_sparse(data_dir: Path, tmp_path: Path) -> None:
    save(data_dir, tmp_path / "backup.tar")
    assert (tmp_path / "backup.tar").stat().st_size < MIB
    restore_backup(tmp_path / "backup.tar", tmp_path / "new")
    disk = (tmp_path / "new/containers/one/scratch.img").stat()
    assert disk.st_size == 256 * MIB + 3
    assert disk.st_blocks * 512 < MIB


def test_backup_is_private(data_dir: Path, tmp_path: Path) -> None:
    save(data_dir, tmp_path / "backup.tar")
    assert (tmp_path / "backup.tar").stat().st_mode & 0o777 == 0o600


def test_running_container_is_named_and_nothing_is_left(data_dir: Path, tmp_path: Path) -> None:
    busy = scope(data_dir, {"containers/one/scratch.img": "web"})
    with pytest.raises(Conflict, match="web") as failure:
        create_backup(busy, tmp_path / "b.tar", slipway_version="1", leave_out_running=False)
    assert "--leave-out-running" in failure.value.advice
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_running_container_can_be_left_out(data_dir: Path, tmp_path: Path) -> None:
    save(data_dir, tmp_path / "b.tar", {"containers/one/scratch.img": "web"})
    assert read_label(tmp_path / "b.tar").left_out == ("web",)
    restore_backup(tmp_path / "b.tar", tmp_path / "new")
    assert not (tmp_path / "new/containers/one/scratch.img").exists()


def test_existing_file_is_not_overwritten(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_text("mine")
    with pytest.raises(Conflict, match="exists"):
        save(data_dir, tmp_path / "b.tar")
    assert (tmp_path / "b.tar").read_text() == "mine"


def test_backup_into_the_data_directory_is_refused(data_dir: Path) -> None:
    with pytest.raises(InvalidArgument, match="itself"):
        save(data_dir, data_dir / "images/b.tar")


def test_missing_directories_are_named(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="nowhere"):
        save(tmp_path / "nowhere", tmp_path / "b.tar")
    with pytest.raises(InvalidArgument, match="nowhere"):
        save(data_dir, tmp_path / "nowhere/b.tar")


def test_restore_refuses_a_directory_that_is_not_empty(data_dir: Path, tmp_path: Path) -> None:
    save(data_dir, tmp_path / "b.tar")
    with pytest.raises(Conflict, match="not empty"):
        restore_backup(tmp_path / "b.tar", data_dir)


def test_damaged_database_is_found_before_anything_is_replaced(
    data_dir: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "b.tar"
    write_archive(archive, {"backup.json": b'{"format": 1}', "slipway.db": b"SQLite format 3\0bad"})
    with pytest.raises(CorruptData, match="damaged"):
        restore_backup(archive, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "data"]


@pytest.mark.parametrize("content", [b"", b"no tar at all", os.urandom(2048)])
def test_other_file_is_no_backup(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CorruptData):
        restore_backup(tmp_path / "x", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_cut_backup_is_refused(data_dir: Path, tmp_path: Path) -> None:
    (data_dir / "images/blobs/big").write_bytes(os.urandom(MIB))
    save(data_dir, tmp_path / "b.tar")
    content = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[: len(content) // 2])
    with pytest.raises((CorruptData, Conflict)):
        restore_backup(tmp_path / "cut.tar", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_missing_backup_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="gone"):
        restore_backup(tmp_path / "gone.tar", tmp_path / "new")


def test_newer_form_is_refused_by_name(tmp_path: Path) -> None:
    label = {"format": 99, "slipway_version": "9.9"}
    write_archive(tmp_path / "b.tar", {"backup.json": json.dumps(label).encode()})
    with pytest.raises(Unsupported, match=r"9\.9"):
        read_label(tmp_path / "b.tar")


@pytest.mark.parametrize("label", [b"[]", b"{}", b"{", b'{"format": "1"}', b"\xff"])
def test_label_that_makes_no_sense_is_refused(tmp_path: Path, label: bytes) -> None:
    write_archive(tmp_path / "b.tar", {"backup.json": label})
    with pytest.raises(CorruptData):
        read_label(tmp_path / "b.tar")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param("../evil", tarfile.REGTYPE, id="parent"),
        pytest.param("a/../../evil", tarfile.REGTYPE, id="parent inside"),
        pytest.param("/etc/evil", tarfile.REGTYPE, id="absolute"),
        pytest.param("link", tarfile.SYMTYPE, id="symbolic link"),
        pytest.param("link", tarfile.LNKTYPE, id="hard link"),
        pytest.param("device", tarfile.CHRTYPE, id="device"),
        pytest.param("pipe", tarfile.FIFOTYPE, id="pipe"),
    ],
)
def test_hostile_member_is_refused_and_nothing_is_written(
    tmp_path: Path, name: str, kind: bytes
) -> None:
    write_archive(tmp_path / "b.tar", {"backup.json": b'{"format": 1}'}, [(name, kind)])
    with pytest.raises(CorruptData, match="which no backup contains"):
        restore_backup(tmp_path / "b.tar", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar"]


def write_archive(
    path: Path, files: dict[str, bytes], more: list[tuple[str, bytes]] | None = None
) -> None:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, kind in more or []:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.linkname = "/etc/passwd"
            archive.addfile(member)
