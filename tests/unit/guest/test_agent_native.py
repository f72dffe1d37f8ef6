"""The agent's own unit tests, fuzzing and vectors, built with sanitizers; its build."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "guest" / "agent"
VECTORS = ROOT / "tests" / "vectors" / "frames.txt"

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        not (shutil.which("gcc") and shutil.which("make")), reason="no gcc and make here"
    ),
]


def _make(source: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["make", "-s", "-C", source, *arguments],
        timeout=170,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_agent_units_fuzzing_and_vectors(tmp_path: Path) -> None:
    output = _make(SOURCE, "check", f"OUT={tmp_path}", f"VECTORS={VECTORS}")
    assert "receiver_resynchronises_after_any_tear" in output
    assert "20000 inputs" in output
    assert "0 failures" in output


def test_agent_build_is_static_and_reproducible(tmp_path: Path) -> None:
    binaries = []
    for name in ("here", "elsewhere/deeper"):
        source = tmp_path / name / "agent"
        shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("build"))
        output = tmp_path / name / "out"
        _make(source, f"OUT={output}")
        binaries.append((output / "slipway-agent").read_bytes())
    assert binaries[0] == binaries[1]
    assert b"/elsewhere" not in binaries[1]
    assert binaries[0][:4] == b"\x7fELF"
    assert b"/lib64/ld-linux" not in binaries[0]
    assert len(binaries[0]) < 2 << 20


def test_agent_files_are_short() -> None:
    for path in SOURCE.glob("*.[ch]"):
        assert len(path.read_text().splitlines()) <= 400, path.name
