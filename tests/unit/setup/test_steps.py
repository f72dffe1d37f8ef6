import errno
import sys
from pathlib import Path

import pytest

from app.setup.steps import SetupFailed, run_command, step


def test_step_prints_what_was_done_and_how_long_it_took(
    capsys: pytest.CaptureFixture[str],
) -> None:
    step("Browser assets", lambda: "up to date")
    assert capsys.readouterr().out == "== Browser assets: up to date (0.0 s)\n"


def test_full_disk_in_a_step_names_the_step_and_the_file() -> None:
    def fill() -> str:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/x")

    with pytest.raises(SetupFailed, match=r"Assets: No space left on device \(/data/x\)"):
        step("Assets", fill)


def test_command_output_is_returned(tmp_path: Path) -> None:
    output = run_command(["pwd"], what="x", advice="y", timeout_s=10, cwd=tmp_path)
    assert output == f"{tmp_path}\n"


def test_failed_command_shows_its_last_lines_only() -> None:
    script = "for i in range(50): print('line', i)\nraise SystemExit(7)"
    with pytest.raises(SetupFailed, match="exit code 7") as failure:
        run_command([sys.executable, "-c", script], what="It", advice="do this", timeout_s=10)
    assert "| line 49" in failure.value.message
    assert "| line 29" not in failure.value.message
    assert failure.value.advice == "do this"


def test_missing_program_is_named() -> None:
    with pytest.raises(SetupFailed, match="no-such-program is not installed"):
        run_command(["no-such-program"], what="It", advice="y", timeout_s=10)


def test_command_without_end_is_ended() -> None:
    with pytest.raises(SetupFailed, match="no end after 0 s"):
        run_command(["sleep", "60"], what="It", advice="y", timeout_s=0.1)
