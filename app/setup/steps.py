"""What the operator sees during set-up: one line per step, its time, and why a step failed."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SHOWN_OUTPUT_LINES = 20


class SetupFailed(Exception):
    """A step can't be done; the message says what failed, `advice` what to do."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


def say(line: str) -> None:
    """Print at once, so that the order holds also when the output is a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def step(name: str, do: Callable[[], str]) -> None:
    """Do one step; `do` returns what it did in a few words, for the line with the time.

    Raises:
        SetupFailed: From `do`; an OSError (a full disk, no permission) is turned into one.
    """
    started_at = time.monotonic()
    try:
        outcome = do()
    except OSError as exc:
        where = f" ({exc.filename})" if exc.filename else ""
        raise SetupFailed(
            f"{name}: {exc.strerror or exc}{where}",
            "Free disk space or correct the permissions, then run the command again.",
        ) from exc
    say(f"== {name}: {outcome} ({time.monotonic() - started_at:.1f} s)")


def announce(name: str, what: str) -> None:
    """Say what takes a while before it begins."""
    say(f"== {name}: {what} ...")


def run_command(
    argv: Sequence[str],
    *,
    what: str,
    advice: str,
    timeout_s: float,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> str:
    """Run a program to its end and return what it wrote (stdout and stderr together).

    Raises:
        SetupFailed: It is missing, ran out of time or failed; its last lines are in the message.
    """
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as exc:
        raise SetupFailed(f"{what} failed: {argv[0]} is not installed", advice) from exc
    except subprocess.TimeoutExpired as exc:
        raise SetupFailed(f"{what} failed: no end after {timeout_s:.0f} s", advice) from exc
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines()[-SHOWN_OUTPUT_LINES:]
        shown = "\n".join(f"   | {line}" for line in lines)
        raise SetupFailed(f"{what} failed (exit code {done.returncode}):\n{shown}", advice)
    return done.stdout
