import re
import sys
from pathlib import Path

import pytest

from app.setup import environment
from app.setup.environment import set_up_environment, write_launcher

ROOT = Path(environment.__file__).resolve().parents[2]
PIN = re.compile(r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)", re.MULTILINE)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that would have been run; making an environment makes its directories."""
    run: list[list[str]] = []

    def record(argv: list[str], **_: object) -> str:
        run.append(list(argv))
        if argv[1:3] == ["-m", "venv"]:
            (Path(argv[3]) / "bin").mkdir(parents=True)
            (Path(argv[3]) / "bin/python").symlink_to(sys.executable)
        return ""

    monkeypatch.setattr(environment, "run_command", record)
    return run


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "requirements.txt").write_text("a==1\n")
    (tmp_path / "requirements-dev.txt").write_text("a==1\nb==2\n")
    return tmp_path


def test_environment_is_made_once(checkout: Path, commands: list[list[str]]) -> None:
    assert set_up_environment(checkout, for_tests=False) == "installed"
    assert [argv[2] for argv in commands[:2]] == ["venv", "pip"]
    assert "--require-hashes" in commands[1]
    assert set_up_environment(checkout, for_tests=False) == "up to date"
    assert len(commands) == 3


def test_changed_requirements_are_installed_again(
    checkout: Path, commands: list[list[str]]
) -> None:
    set_up_environment(checkout, for_tests=False)
    (checkout / "requirements.txt").write_text("a==2\n")
    assert set_up_environment(checkout, for_tests=False) == "installed"


def test_environment_of_the_tests_serves_the_run_too(
    checkout: Path, commands: list[list[str]]
) -> None:
    set_up_environment(checkout, for_tests=True)
    assert set_up_environment(checkout, for_tests=False) == "up to date"


def test_interrupted_installation_is_repeated(
    checkout: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(environment, "write_launcher", interrupt)
        with pytest.raises(KeyboardInterrupt):
            set_up_environment(checkout, for_tests=False)
    assert set_up_environment(checkout, for_tests=False) == "installed"


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_launcher_runs_the_checkout_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    write_launcher(tmp_path, ROOT)
    launcher = tmp_path / "bin/slipway"
    assert launcher.stat().st_mode & 0o111
    assert str(ROOT) in launcher.read_text()


def test_both_requirement_files_pin_the_same_versions() -> None:
    runtime = dict(PIN.findall((ROOT / "requirements.txt").read_text()))
    development = dict(PIN.findall((ROOT / "requirements-dev.txt").read_text()))
    assert runtime
    assert {name: development.get(name) for name in runtime} == runtime


def test_requirements_hold_every_direct_dependency_as_pinned() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    block = project.split("dependencies = [")[1].split("]\n")[0]
    direct = dict(re.findall(r'"([\w.-]+)(?:\[[\w,]+\])?==([^"]+)"', block))
    runtime = dict(PIN.findall((ROOT / "requirements.txt").read_text()))
    assert direct
    assert {name.replace(".", "-"): runtime[name.replace(".", "-")] for name in direct} == {
        name.replace(".", "-"): version for name, version in direct.items()
    }
