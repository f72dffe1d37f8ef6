"""Runs the programs that building a guest needs, each with a deadline."""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from pathlib import Path

from app.core.errors import DeadlineExceeded, PrerequisiteMissing

_KILL_WAIT_S = 5.0


class CommandFailed(Exception):
    """A program ran and was not content; never leaves app.guest.

    Attributes:
        output: The end of what it said, on standard error if anything.
    """

    def __init__(self, program: str, code: int, output: str) -> None:
        super().__init__(f"{program} failed with status {code}: {output}")
        self.output = output


async def run_command(
    arguments: Sequence[str | Path],
    *,
    timeout_s: float,
    advice: str,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a program to its end and return its standard output.

    It speaks English (LC_ALL=C) and reads nothing. It and what it started are killed when the
    deadline passes or the caller is cancelled.

    Args:
        arguments: Program, found in PATH, and its arguments.
        timeout_s: Deadline, seconds.
        advice: How to get the program, for the error if it is missing.
        directory: Working directory.
        environment: Set beside the engine's own environment.

    Raises:
        PrerequisiteMissing: The program is not installed.
        CommandFailed: It ended with another status than 0.
        DeadlineExceeded: It took too long.
    """
    program = str(arguments[0])
    beginning = asyncio.create_task(_begin(arguments, directory, environment or {}))
    try:
        process = await asyncio.shield(beginning)
    except FileNotFoundError as exc:
        raise PrerequisiteMissing(f"{program} is not installed", advice=advice) from exc
    except asyncio.CancelledError:
        # asyncio, cancelled in the middle, would end the program but not what that has started,
        # and wait for the latter.
        with contextlib.suppress(OSError):
            await _kill(await beginning)
        raise
    try:
        async with asyncio.timeout(timeout_s):
            output, errors = await process.communicate()
    except TimeoutError as exc:
        raise DeadlineExceeded(f"{program} did not finish within {timeout_s:.0f} s") from exc
    finally:
        if process.returncode is None:
            await _kill(process)
    if process.returncode:
        said = (errors.strip() or output.strip()).decode(errors="replace")
        raise CommandFailed(program, process.returncode, said[-2000:])
    return output.decode(errors="replace")


async def _begin(
    arguments: Sequence[str | Path], directory: Path | None, environment: Mapping[str, str]
) -> Process:
    return await asyncio.create_subprocess_exec(
        *map(str, arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=directory,
        env={**os.environ, "LC_ALL": "C", **environment},
        start_new_session=True,
    )


async def _kill(process: Process) -> None:
    """End a program and what it has started; nobody has to be waiting for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_KILL_WAIT_S):
            await process.wait()
