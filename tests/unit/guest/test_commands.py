"""Programs with a deadline: nothing of them stays."""

import asyncio
import os
import select
from pathlib import Path

import pytest

from app.core.errors import DeadlineExceeded, PrerequisiteMissing
from app.guest.commands import CommandFailed, run_command


async def run(script: str, *arguments: str | Path, timeout_s: float = 10.0) -> str:
    return await run_command(
        ["sh", "-c", script, "sh", *arguments], timeout_s=timeout_s, advice="none"
    )


def has_ended(process: int) -> bool:
    """Whether the process behind a pidfd ends within seconds; closes the pidfd."""
    ended, _, _ = select.select([process], [], [], 5)
    os.close(process)
    return bool(ended)


def is_gone(pid: int) -> bool:
    """As `has_ended`, for a process that may be gone already."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    return has_ended(process)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


async def test_output_is_returned() -> None:
    assert await run("echo out; echo err >&2") == "out\n"


async def test_environment_and_directory_are_the_callers(tmp_path: Path) -> None:
    output = await run_command(
        ["sh", "-c", 'echo "$EXTRA $LC_ALL"; pwd'],
        timeout_s=10,
        advice="none",
        directory=tmp_path,
        environment={"EXTRA": "given"},
    )
    assert output == f"given C\n{tmp_path}\n"


async def test_input_is_empty() -> None:
    assert await run("cat") == ""


async def test_failure_tells_what_was_said_last() -> None:
    with pytest.raises(CommandFailed, match="sh failed with status 3: bad thing") as caught:
        await run("echo out; echo bad thing >&2; exit 3")
    assert caught.value.output == "bad thing"


async def test_failure_output_is_bounded() -> None:
    with pytest.raises(CommandFailed) as caught:
        await run("yes | head -c 100000 >&2; exit 1")
    assert len(caught.value.output) <= 2000


async def test_missing_program_comes_with_its_cure() -> None:
    with pytest.raises(PrerequisiteMissing, match="no-such-program is not installed") as caught:
        await run_command(["no-such-program"], timeout_s=10, advice="the cure")
    assert caught.value.advice == "the cure"


async def test_deadline_ends_the_program_and_its_children(fifo: Path) -> None:
    reading = asyncio.create_task(asyncio.to_thread(fifo.read_text))
    with pytest.raises(DeadlineExceeded, match="sh did not finish within 1 s"):
        await run('sleep 60 & echo $! > "$1"; wait', fifo, timeout_s=1.0)
    assert await asyncio.to_thread(is_gone, int(await reading))


@pytest.mark.parametrize("attempt", range(10))
async def test_cancelling_ends_the_program_and_its_children(fifo: Path, attempt: int) -> None:
    """At any moment, even before asyncio has said that the program runs."""
    task = asyncio.create_task(run('sleep 60 & echo $! > "$1"; wait', fifo))
    child = os.pidfd_open(int(await asyncio.to_thread(fifo.read_text)))
    task.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert has_ended(child)
