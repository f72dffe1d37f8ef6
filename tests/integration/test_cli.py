"""The command `slipway` on a real data directory."""

import asyncio
import io
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli import main
from app.db.database import Database
from app.db.repositories.containers import ContainerRepository
from app.domain.container import Container, ContainerState
from app.domain.container_config import ContainerConfig
from app.domain.vm import VmEndReason
from app.hypervisor.port import VmExit, VmSpec
from app.hypervisor.qemu.rundir import RunDirectory
from app.services.launch import CONTAINER_LABEL
from app.storage.data_directory import DataDirectoryLock

PASSWORD = "correct horse battery"


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "data"
    monkeypatch.setenv("SLIPWAY_DATA_DIR", str(path))
    return path


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """`serve` sets the handler of SIGTERM for its process, which here is the test run's."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must succeed; returns what it printed."""
    capsys.readouterr()
    assert main(arguments) == 0
    return capsys.readouterr().out


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail; returns what it said."""
    capsys.readouterr()
    assert main(arguments) == 1
    return capsys.readouterr().err


@pytest.mark.usefixtures("data_dir", "password")
def test_user_is_added_before_the_first_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "user", "add", "Alice", "--password-stdin") == "Added alice.\n"
    assert "alice" in output(capsys, "user", "list")


@pytest.mark.usefixtures("data_dir")
def test_short_password_is_refused_with_the_rule(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    assert "at least 10 characters" in failure(capsys, "user", "add", "bob", "--password-stdin")


@pytest.mark.usefixtures("data_dir")
def test_password_without_a_terminal_names_the_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert "--password-stdin" in failure(capsys, "user", "add", "bob")


@pytest.mark.usefixtures("data_dir", "password")
def test_last_user_is_not_removed(capsys: pytest.CaptureFixture[str]) -> None:
    output(capsys, "user", "add", "alice", "--password-stdin")
    assert "only one" in failure(capsys, "user", "remove", "alice")


@pytest.mark.usefixtures("data_dir")
def test_unknown_user_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
    assert "eve" in failure(capsys, "user", "password", "eve", "--password-stdin")


@pytest.mark.usefixtures("data_dir")
def test_token_is_printed_once_and_revoked_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    secret = output(capsys, "token", "create", "ci").strip()
    assert secret.startswith("slw_")
    listed = output(capsys, "token", "list")
    assert "ci" in listed
    assert secret not in listed
    assert output(capsys, "token", "revoke", "ci") == "Revoked ci.\n"
    assert "ci" in failure(capsys, "token", "revoke", "ci")


def test_accounts_work_beside_a_running_engine(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output(capsys, "token", "list")
    with DataDirectoryLock.take(data_dir):
        output(capsys, "token", "create", "beside")
        assert "beside" in output(capsys, "token", "list")


def test_backup_and_restore_keep_accounts(
    data_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output(capsys, "token", "create", "kept")
    target = tmp_path / "backup.tar"
    assert f"Saved {data_dir} to {target}" in output(capsys, "backup", str(target))
    monkeypatch.setenv("SLIPWAY_DATA_DIR", str(tmp_path / "restored"))
    assert "Restored" in output(capsys, "restore", str(target))
    assert "kept" in output(capsys, "token", "list")


def test_backup_names_a_container_that_runs_and_can_leave_its_disk_out(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output(capsys, "token", "list")
    asyncio.run(add_container(data_dir, "web", ContainerState.RUNNING))
    target = str(tmp_path / "backup.tar")
    assert "web" in failure(capsys, "backup", target)
    assert not Path(target).exists()
    assert "web" in output(capsys, "backup", target, "--leave-out-running")


def test_backup_names_a_container_that_ended_and_whose_vm_saves_its_disk(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output(capsys, "token", "list")
    asyncio.run(add_container(data_dir, "web", ContainerState.EXITED))
    directory = RunDirectory.create(data_dir / "v" / "0a1b2c3d4e5f")
    (data_dir / "v" / "1b2c3d4e5f0a").mkdir()  # one that is just being made
    directory.write_spec(
        VmSpec(
            id=directory.id,
            vcpus=1,
            memory_bytes=1,
            kernel=tmp_path,
            initrd=tmp_path,
            cmdline="",
            disks=(),
            labels={CONTAINER_LABEL: "ab" * 32},
        )
    )
    assert "web" in failure(capsys, "backup", str(tmp_path / "early.tar"))
    directory.write_exit(VmExit(VmEndReason.STOPPED, ""))
    assert "Saved" in output(capsys, "backup", str(tmp_path / "late.tar"))


async def add_container(data_dir: Path, name: str, state: ContainerState) -> None:
    """A record as an engine would have left it."""
    container = Container(
        id="ab" * 32,
        name=name,
        image_id="sha256:" + "cd" * 32,
        config=ContainerConfig(image="busybox:latest"),
        created_at_ns=1,
        state=state,
    )
    database = Database(data_dir / "slipway.db")
    await database.open()
    try:
        async with database.write() as session:
            await ContainerRepository(session).add(container)
    finally:
        await database.close()


def test_restore_over_data_is_refused(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output(capsys, "token", "list")
    output(capsys, "backup", str(tmp_path / "backup.tar"))
    assert "not empty" in failure(capsys, "restore", str(tmp_path / "backup.tar"))


def test_stop_without_a_data_directory_has_nothing_to_do(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nothing runs" in output(capsys, "stop", "--all")
    assert not data_dir.exists()


def test_stop_says_that_the_engine_does_not_serve_yet(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with DataDirectoryLock.take(data_dir):
        assert "does not serve yet" in failure(capsys, "stop", "--all")


def test_uninstall_removes_the_data_directory(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output(capsys, "token", "list")
    assert f"Removed {data_dir}." in output(capsys, "uninstall", "--yes")
    assert not data_dir.exists()


def test_uninstall_asks_and_keeps_everything_without_a_yes(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output(capsys, "token", "list")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["uninstall"]) == 1
    assert "Nothing was removed." in capsys.readouterr().out
    assert (data_dir / "slipway.db").exists()


def test_uninstall_refuses_while_an_engine_runs(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with DataDirectoryLock.take(data_dir):
        assert "in use" in failure(capsys, "uninstall", "--yes")
        assert data_dir.exists()


def test_uninstall_never_removes_a_directory_that_is_not_ours(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir.mkdir()
    (data_dir / "thesis.odt").write_text("")
    assert "no data directory of Slipway" in failure(capsys, "uninstall", "--yes")
    assert (data_dir / "thesis.odt").exists()


@pytest.mark.usefixtures("data_dir")
def test_doctor_reports_a_missing_guest_as_json_and_fails(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    verdicts = {each["check"]: each["verdict"] for each in document["findings"]}
    assert verdicts["guest"] == "fault"
    assert verdicts["python"] == "ok"
    assert document["faults"] >= 1
    assert not data_dir.exists()


def test_wrong_setting_is_told_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_PORT", "no")
    assert "SLIPWAY_PORT=no" in failure(capsys, "doctor")


def test_serve_refuses_a_data_directory_in_use(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with DataDirectoryLock.take(data_dir):
        said = failure(capsys, "serve")
    assert f"{data_dir} is in use" in said
    assert "SLIPWAY_DATA_DIR" in said


@pytest.mark.usefixtures("data_dir")
def test_serve_refuses_a_port_in_use(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("SLIPWAY_PORT", str(port))
        said = failure(capsys, "serve")
    assert f"Port {port}" in said
    assert "SLIPWAY_PORT" in said


@pytest.mark.usefixtures("data_dir")
def test_serve_refuses_an_address_that_is_not_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_HOST", "192.0.2.1")
    assert "SLIPWAY_HOST" in failure(capsys, "serve")


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "version").startswith("slipway 0.")


def test_unit_names_the_program_that_prints_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "slipway"
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(program)])
    unit = output(capsys, "unit")
    assert f"ExecStart={program} serve\n" in unit
    assert "KillMode=process" in unit
