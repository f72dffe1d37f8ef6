import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.errors import Conflict, Unavailable
from app.storage.data_directory import DataDirectoryLock, find_engine


def test_lock_makes_a_private_directory(tmp_path: Path) -> None:
    data_dir = tmp_path / "a/b"
    with DataDirectoryLock.take(data_dir):
        assert data_dir.stat().st_mode & 0o777 == 0o700


def test_second_engine_is_told_who_has_it_and_what_to_do(tmp_path: Path) -> None:
    with DataDirectoryLock.take(tmp_path) as lock:
        lock.publish("http://127.0.0.1:8080")
        with pytest.raises(Conflict, match=rf"process {os.getpid()}.*127\.0\.0\.1:8080") as failure:
            DataDirectoryLock.take(tmp_path)
        assert "SLIPWAY_DATA_DIR" in failure.value.advice


def test_lock_is_free_after_close_and_close_is_idempotent(tmp_path: Path) -> None:
    lock = DataDirectoryLock.take(tmp_path)
    lock.close()
    lock.close()
    DataDirectoryLock.take(tmp_path).close()


def test_program_that_the_engine_starts_does_not_inherit_the_lock(tmp_path: Path) -> None:
    lock = DataDirectoryLock.take(tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False
    )
    try:
        lock.close()
        DataDirectoryLock.take(tmp_path).close()
    finally:
        child.communicate(b"\n", timeout=10)


def test_lock_of_a_killed_engine_is_free(tmp_path: Path) -> None:
    script = (
        "import sys, os, signal; from pathlib import Path;"
        "from app.storage.data_directory import DataDirectoryLock;"
        "lock = DataDirectoryLock.take(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=root, timeout=20, check=False
    )
    assert done.returncode == -9
    assert find_engine(tmp_path) is None
    DataDirectoryLock.take(tmp_path).close()


def test_engine_is_found_while_it_holds_the_lock(tmp_path: Path) -> None:
    assert find_engine(tmp_path) is None
    with DataDirectoryLock.take(tmp_path) as lock:
        lock.publish("http://127.0.0.1:9")
        engine = find_engine(tmp_path)
    assert engine is not None
    assert (engine.pid, engine.url) == (os.getpid(), "http://127.0.0.1:9")
    assert find_engine(tmp_path) is None


def test_shorter_address_leaves_nothing_of_the_longer(tmp_path: Path) -> None:
    with DataDirectoryLock.take(tmp_path) as lock:
        lock.publish("http://127.0.0.1:65535/with/a/long/path")
        lock.publish("http://a")
        engine = find_engine(tmp_path)
    assert engine is not None
    assert engine.url == "http://a"


def test_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="file"):
        DataDirectoryLock.take(tmp_path / "file")
