"""Attach and exec with the real docker CLI, over the engine with the fake machine."""

import asyncio
import hashlib
import json
import random

import pytest

from app.services.bundle import Services
from tests.integration.docker_lab import DockerClient, needs_docker_cli
from tests.integration.docker_terminal import DockerTerminal

pytestmark = needs_docker_cli

SLEEPER = ("run", "-d", "--name", "box", "busybox", "sleep", "1000")


@pytest.fixture
async def box(docker: DockerClient) -> DockerClient:
    """A client, and a container that sleeps."""
    await docker.ok(*SLEEPER)
    return docker


async def test_exec_gives_output_errors_and_exit_code(box: DockerClient) -> None:
    assert await box.ok("exec", "box", "echo", "hello") == "hello\n"
    ran = await box.run("exec", "box", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (ran.code, ran.out, ran.err) == (7, "out\n", "err\n")


async def test_exec_takes_input_to_its_end(box: DockerClient) -> None:
    assert await box.ok("exec", "-i", "box", "cat", stdin=b"abc\n") == "abc\n"
    ran = await box.run("exec", "box", "cat", stdin=b"not for it")
    assert (ran.code, ran.out) == (0, "")


async def test_exec_passes_binary_data_both_ways(box: DockerClient) -> None:
    data = random.Random(7).randbytes(5_000_000)
    process = await box.start("exec", "-i", "box", "cat")
    async with asyncio.timeout(15):
        out, _ = await process.communicate(data)
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


async def test_output_after_the_end_of_input_is_not_lost(box: DockerClient) -> None:
    lines = "".join(f"{number}\n" for number in range(20_000)).encode()
    assert (await box.ok("exec", "-i", "box", "wc", "-l", stdin=lines)).strip() == "20000"
    late = await box.ok("exec", "-i", "box", "sh", "-c", "cat; sleep 1; echo done", stdin=b"q\n")
    assert late == "q\ndone\n"


async def test_input_that_nobody_reads_costs_no_output(box: DockerClient) -> None:
    data = b"y\n" * 2_000_000
    assert await box.ok("exec", "-i", "box", "head", "-c", "3", stdin=data) == "y\ny"


async def test_exec_in_what_is_not_there(box: DockerClient) -> None:
    missing = await box.run("exec", "nope", "true")
    assert missing.err == "Error response from daemon: No such container: nope\n"
    unknown = await box.run("exec", "box", "no-such-program")
    assert unknown.code == 126
    assert 'exec: "no-such-program": executable file not found in $PATH' in unknown.out
    await box.ok("pause", "box")
    paused = await box.run("exec", "box", "true")
    assert "Container box is paused, unpause the container before exec" in paused.err
    await box.ok("unpause", "box")
    await box.ok("kill", "box")
    ended = await box.run("exec", "box", "true")
    assert "is not running" in ended.err


async def test_exec_settings(box: DockerClient) -> None:
    env = await box.ok("exec", "-e", "COLOUR=red", "-w", "/tmp", "-u", "1000", "box", "env")
    assert "COLOUR=red" in env.splitlines()


async def test_detached_exec_is_shown_until_it_ends(box: DockerClient, services: Services) -> None:
    await box.ok("exec", "-d", "box", "sleep", "1000")
    ids = json.loads(await box.ok("inspect", "--format", "{{json .ExecIDs}}", "box"))
    view = services.exec.get(ids[0])
    assert (view.is_running, view.exit_code) == (True, None)
    await box.ok("kill", "box")


async def test_many_execs_at_once(box: DockerClient) -> None:
    slots = asyncio.Semaphore(16)

    async def one(number: int) -> str:
        async with slots:
            return await box.ok("exec", "box", "echo", str(number))

    outputs = await asyncio.gather(*(one(number) for number in range(48)))
    assert outputs == [f"{number}\n" for number in range(48)]


# --- run and attach ----------------------------------------------------------------------------


async def test_run_is_create_attach_start_wait(docker: DockerClient) -> None:
    assert await docker.ok("run", "--rm", "-i", "busybox", "cat", stdin=b"zzz\n") == "zzz\n"
    ran = await docker.run("run", "--rm", "busybox", "sh", "-c", "echo 1; echo 2 >&2; exit 3")
    assert (ran.code, ran.out, ran.err.splitlines()[-1]) == (3, "1\n", "2")


async def test_run_passes_large_input_and_output(docker: DockerClient) -> None:
    data = random.Random(8).randbytes(2_000_000)
    process = await docker.start("run", "--rm", "-i", "busybox", "cat")
    async with asyncio.timeout(15):
        out, err = await process.communicate(data)
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest(), err


async def test_attach_gives_what_comes_and_leaves_it_running(docker: DockerClient) -> None:
    await docker.ok("run", "-d", "--name", "att", "busybox", "loop", "0.05")
    process = await docker.start("attach", "--no-stdin", "--sig-proxy=false", "att")
    assert process.stdout is not None
    async with asyncio.timeout(10):
        first = int(await process.stdout.readline())
        following = [int(await process.stdout.readline()) for _ in range(5)]
    assert following == list(range(first + 1, first + 6))
    process.kill()
    await process.wait()
    assert await docker.ok("inspect", "--format", "{{.State.Running}}", "att") == "true\n"


async def test_start_attached_gives_output_and_exit_code(docker: DockerClient) -> None:
    await docker.ok("create", "--name", "cc", "busybox", "sh", "-c", "echo one; exit 4")
    ran = await docker.run("start", "-a", "cc")
    assert (ran.code, ran.out) == (4, "one\n")


async def test_input_of_a_container_started_without_attach(docker: DockerClient) -> None:
    await docker.ok("run", "-d", "-i", "--name", "reader", "busybox", "cat")
    process = await docker.start("attach", "reader")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"typed\n")
    async with asyncio.timeout(10):
        assert await process.stdout.readline() == b"typed\n"
    process.stdin.close()  # it was not opened for once: the container goes on
    process.kill()  # else it waits for the container's end
    await process.wait()
    assert await docker.ok("inspect", "--format", "{{.State.Running}}", "reader") == "true\n"


@pytest.mark.timeout(90)
async def test_a_slow_reader_holds_the_container_back_and_loses_nothing(
    docker: DockerClient, services: Services
) -> None:
    process = await docker.start("run", "--name", "fl", "busybox", "flood", "400000")
    assert process.stdout is not None
    async with asyncio.timeout(80):
        assert await process.stdout.readline() == b"1\n"
        await asyncio.sleep(0.5)  # the pipe, the socket and the guest's window are full by now
        container = await services.containers.get("fl")
        assert container.state == "running"
        rest = (await process.stdout.read()).split()
    assert rest == [str(number).encode() for number in range(2, 400_001)]


# --- terminals ---------------------------------------------------------------------------------


async def test_typed_input_and_size_of_a_terminal(box: DockerClient) -> None:
    async with DockerTerminal(box, "exec", "-it", "box", "cat", rows=40, columns=120) as terminal:
        await terminal.type("hello\n")
        await terminal.until("hello")


async def test_detach_keys_leave_it_running(docker: DockerClient) -> None:
    script = ("busybox", "sh", "-c", "echo ready; cat")
    async with DockerTerminal(docker, "run", "-it", "--name", "tt", *script) as terminal:
        await terminal.until("ready")
        await terminal.type("one\n")
        await terminal.until("one")
        await terminal.type("\x10\x11")  # ^P ^Q
        assert await terminal.ended() == 0
    assert await docker.ok("inspect", "--format", "{{.State.Running}}", "tt") == "true\n"


async def test_signals_are_forwarded(docker: DockerClient) -> None:
    process = await docker.start("run", "--name", "tr", "busybox", "trap", "5")
    assert process.stdout is not None
    async with asyncio.timeout(10):
        assert await process.stdout.readline() == b"ready\n"
        process.terminate()
        assert await process.stdout.read() == b"terminated\n"
        assert await process.wait() == 5
