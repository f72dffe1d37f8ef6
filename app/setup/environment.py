"""The virtual environment `.venv` with pinned, hash-checked requirements."""

import compileall
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from app.setup.steps import announce, run_command

PIP_TIMEOUT_S = 900
PIP_ADVICE = (
    "Check that this machine reaches PyPI (or set PIP_INDEX_URL to your mirror), "
    "then run the command again."
)
COMPILE = "import compileall, sys; compileall.compile_dir(sys.argv[1], quiet=2, workers=0)"
LAUNCHER = """#!{python}
import sys

sys.path.insert(0, {root!r})
from app.cli import main

sys.exit(main())
"""


def digest_of(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _works(venv: Path) -> bool:
    """Whether the environment was made for this very Python and can still run."""
    python = venv / "bin/python"
    if not python.exists():  # also when its base Python has gone
        return False
    version = ".".join(str(part) for part in sys.version_info[:2])
    if not (venv / f"lib/python{version}/site-packages/pip").is_dir():
        return False
    done = subprocess.run(
        [str(python), "-c", "import sys; print(sys.prefix)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode == 0 and Path(done.stdout.strip()).resolve() == venv.resolve()


def _read_stamp(path: Path) -> dict[str, str]:
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _make(venv: Path, root: Path) -> None:
    if venv.is_symlink() or venv.is_file():
        venv.unlink()
    shutil.rmtree(venv, ignore_errors=True)
    run_command(
        [sys.executable, "-m", "venv", str(venv)],
        what="Making the Python environment .venv",
        advice="Remove the directory .venv and run the command again.",
        timeout_s=PIP_TIMEOUT_S,
        cwd=root,
    )


def _install(venv: Path, root: Path, pins: str) -> None:
    run_command(
        [
            *(str(venv / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check"),
            *("--no-input", "--no-compile", "--no-deps"),
            *("--require-hashes", "-r", str(root / pins)),
        ],
        what=f"Installing {pins}",
        advice=PIP_ADVICE,
        timeout_s=PIP_TIMEOUT_S,
        cwd=root,
    )
    # All at once on every CPU, and also what was there already. Some packages carry files that
    # are no valid Python; the exit code would tell of them.
    run_command(
        [str(venv / "bin/python"), "-c", COMPILE, str(venv / "lib")],
        what="Compiling the Python packages",
        advice="Remove the directory .venv and run the command again.",
        timeout_s=PIP_TIMEOUT_S,
    )


def set_up_environment(root: Path, *, for_tests: bool) -> str:
    """Make `.venv` hold exactly the pinned versions; returns what was done.

    An environment that another Python made, or that was moved, is made anew. The stamp is written
    last, so that an interrupted installation is repeated.

    Raises:
        SetupFailed: No network, a wrong hash, a version without a wheel for this Python.
    """
    venv = root / ".venv"
    stamp_path = venv / "slipway-stamp.json"
    wanted = {
        "python": sys.version.split()[0],
        "root": str(root),
        "requirements.txt": digest_of(root / "requirements.txt"),
    }
    pins = "requirements.txt"
    if for_tests:
        pins = "requirements-dev.txt"
        wanted[pins] = digest_of(root / pins)
    stamp = _read_stamp(stamp_path)
    if wanted.items() <= stamp.items() and (venv / "bin/python").exists():
        return "up to date"
    announce("Python environment", f"installing {pins} into .venv")
    if not _works(venv):
        _make(venv, root)
    stamp_path.unlink(missing_ok=True)
    _install(venv, root, pins)
    write_launcher(venv, root)
    stamp_path.write_text(json.dumps(wanted), encoding="utf-8")
    return "installed"


def compile_code(root: Path) -> None:
    """Compile our own code, which halves the time of a start where Python may not write caches."""
    compileall.compile_dir(root / "app", quiet=2)


def write_launcher(venv: Path, root: Path) -> None:
    """Put `slipway` into the environment; it runs the checkout's code."""
    launcher = venv / "bin/slipway"
    launcher.write_text(
        LAUNCHER.format(python=venv / "bin/python", root=str(root)), encoding="utf-8"
    )
    launcher.chmod(0o755)
