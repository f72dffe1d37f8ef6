"""The first lines of ./run and ./test, and what they say when set-up can't go on."""

import os
import subprocess
import threading
from pathlib import Path

import pytest

from app.setup import begin
from app.setup.steps import SetupFailed

ROOT = Path(__file__).resolve().parents[2]


def test_machine_without_a_new_python_is_told_what_to_install(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    for name in ("cat", "dirname"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    script = tmp_path / "app/setup/start.sh"
    script.parent.mkdir(parents=True)
    text = (ROOT / "app/setup/start.sh").read_text()
    script.write_text(text.replace("/usr/bin/python3", "/nowhere/python3"))
    done = subprocess.run(
        ["/bin/bash", script, "run"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr
    assert "Python 3.9.2" in done.stderr


@pytest.mark.parametrize("script", ["run", "test", ".ci/run"])
def test_scripts_work_from_any_directory(script: str, tmp_path: Path) -> None:
    """The Python they would hand over to is replaced by one that says what it was given."""
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\nshift 3\necho "$@"\n')
    fake.chmod(0o755)
    done = subprocess.run(
        [ROOT / script, "some", "words"],
        cwd=tmp_path,
        env={**os.environ, "SLIPWAY_PYTHON": str(fake)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    mode = "run" if script == "run" else "test"
    assert done.stdout == f"{ROOT} {mode} some words\n"


def test_failed_step_is_told_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SetupFailed("Installing Debian packages failed", "Wait for the other apt.")

    monkeypatch.setattr(begin, "set_up_machine", fail)
    assert begin.main(["run"]) == 1
    said = capsys.readouterr().err
    assert "Installing Debian packages failed" in said
    assert "Wait for the other apt." in said


def test_interrupted_setup_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(begin, "set_up_machine", interrupt)
    assert begin.main(["run"]) == 130
    assert "goes on from here" in capsys.readouterr().err


def test_second_setup_of_a_checkout_waits_for_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = subprocess.Popen(
        ["flock", tmp_path, "sh", "-c", "echo locked; read _"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "locked\n"
    release = threading.Timer(0.3, first.communicate, kwargs={"input": "\n"})
    release.start()
    with begin._setup_lock(tmp_path):
        assert first.wait(timeout=10) == 0
    release.join()
    assert "waiting for it" in capsys.readouterr().out
