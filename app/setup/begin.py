"""What ./run and ./test hand over to, by start.sh."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.setup.assets import set_up_assets, set_up_test_assets
from app.setup.environment import compile_code, set_up_environment
from app.setup.machine import set_up_machine
from app.setup.steps import SetupFailed, say, step

ROOT = Path(__file__).resolve().parents[2]
INTERRUPTED = 130  # 128 + SIGINT, as a shell says it


@contextmanager
def _setup_lock(root: Path) -> Iterator[None]:
    """Let one set-up of this checkout run at a time; the second waits, then finds it done."""
    directory = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("== Another set-up of this checkout is running; waiting for it ...")
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def set_up(root: Path, *, for_tests: bool) -> Path:
    """Do every step that comes before Slipway's own code; returns the environment's Python.

    Raises:
        SetupFailed: The first step that can't be done; earlier ones stay done.
    """
    python = root / ".venv/bin/python"
    with _setup_lock(root):
        set_up_machine(root, for_tests=for_tests)
        step("Python environment", lambda: set_up_environment(root, for_tests=for_tests))
        compile_code(root)
        step("Browser assets", lambda: set_up_assets(root, python))
        if for_tests:
            step("Test assets", lambda: set_up_test_assets(root, python))
    return python


def main(arguments: list[str]) -> int:
    """Set up, then become `slipway` or the test run; returns only when the set-up failed."""
    mode, *rest = arguments
    for_tests = mode == "test"
    try:
        python = set_up(ROOT, for_tests=for_tests)
    except SetupFailed as exc:
        sys.stderr.write(f"\nSet-up failed. {exc.message}\n{exc.advice}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. Run the same command again: it goes on from here.\n")
        return INTERRUPTED
    if for_tests:
        os.chdir(ROOT)
        os.execv(python, [str(python), "-m", "app.setup.checks", *rest])
    slipway = python.with_name("slipway")
    os.execv(slipway, [str(slipway), *(rest or ["serve"])])
