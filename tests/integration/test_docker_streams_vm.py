"""Attach and exec with the real docker CLI on a real engine with real VMs."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator

import pytest

from tests.integration.docker_lab import DockerClient, needs_docker_cli
from tests.integration.docker_terminal import DockerTerminal
from tests.integration.engine_process import EngineProcess, build_shared_guest

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(300), needs_docker_cli]

DEADLINE_S = 120.0
EXECS, WIDTH = 300, 16


@pytest.fixture(scope="module")
async def docker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DockerClient]:
    """The CLI on the unix socket of an engine, with a container `box` that sleeps."""
    guest = await build_shared_guest(tmp_path_factory.mktemp("guest"))
    async with EngineProcess(tmp_path_factory.mktemp("engine"), guest) as engine:
        await engine.start()
        host = f"unix://{engine.data_dir / 'docker.sock'}"
        client = DockerClient(host, tmp_path_factory.mktemp("client"))
        sleeper = ("run", "-d", "--init", "--name", "box", "busybox", "sleep", "100000")
        await client.ok(*sleeper, deadline_s=DEADLINE_S)
        yield client


async def test_exec_gives_output_errors_and_exit_code(docker: DockerClient) -> None:
    ran = await docker.run("exec", "box", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (ran.code, ran.out, ran.err) == (7, "out\n", "err\n")
    unknown = await docker.run("exec", "box", "no-such-program")
    assert unknown.code == 126
    assert "executable file not found in $PATH" in unknown.out


async def test_exec_as_somebody_somewhere(docker: DockerClient) -> None:
    script = "id -u; pwd; echo $COLOUR; grep CapEff /proc/self/status"
    out = await docker.ok(
        "exec", "--privileged", "-e", "COLOUR=red", "-w", "/tmp", "-u", "0", "box",
        "sh", "-c", script,
    )  # fmt: skip
    uid, directory, colour, capabilities = out.splitlines()
    assert (uid, directory, colour) == ("0", "/tmp", "red")
    assert int(capabilities.split()[1], 16) == (1 << 41) - 1


async def test_fifty_megabytes_through_an_exec(docker: DockerClient) -> None:
    data = random.Random(7).randbytes(50_000_000)
    process = await docker.start("exec", "-i", "box", "cat")
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate(data)
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest(), err


async def test_output_after_the_end_of_input_is_not_lost(docker: DockerClient) -> None:
    script = "cat >/dev/null; sleep 2; echo done"
    assert await docker.ok("exec", "-i", "box", "sh", "-c", script, stdin=b"q\n") == "done\n"


async def test_input_that_nobody_reads_costs_no_output(docker: DockerClient) -> None:
    data = b"y\n" * 10_000_000
    out = await docker.ok("exec", "-i", "box", "head", "-c", "3", stdin=data, deadline_s=60)
    assert out == "y\ny"


async def test_many_execs_at_once(docker: DockerClient) -> None:
    slots = asyncio.Semaphore(WIDTH)

    async def one(number: int) -> str:
        async with slots:
            return await docker.ok("exec", "box", "echo", str(number), deadline_s=DEADLINE_S)

    outputs = await asyncio.gather(*(one(number) for number in range(EXECS)))
    assert outputs == [f"{number}\n" for number in range(EXECS)]


async def test_run_with_input_output_and_exit_code(docker: DockerClient) -> None:
    base = ("run", "--rm", "--network", "none")
    assert await docker.ok(*base, "-i", "busybox", "cat", stdin=b"zzz\n", deadline_s=60) == "zzz\n"
    script = "echo 1; echo 2 >&2; exit 3"
    ran = await docker.run(*base, "busybox", "sh", "-c", script, deadline_s=60)
    assert (ran.code, ran.out, ran.err) == (3, "1\n", "2\n")


async def test_all_output_of_a_run_comes(docker: DockerClient) -> None:
    base = ("run", "--rm", "--network", "none")
    out = await docker.ok(*base, "busybox", "seq", "300000", deadline_s=DEADLINE_S)
    assert out == "".join(f"{number}\n" for number in range(1, 300_001))


async def test_a_terminal_with_its_size_and_interrupt(docker: DockerClient) -> None:
    args = ("exec", "-it", "box", "sh")
    async with DockerTerminal(docker, *args, rows=40, columns=120) as terminal:
        await terminal.type("stty size\n")
        await terminal.until("40 120")
        terminal.resize(50, 132)
        await terminal.signal_size()
        await terminal.type("while ! stty size | grep '50 132'; do sleep 0.1; done; echo now\n")
        await terminal.until("50 132\r\nnow")
        await terminal.type("echo beg''un; sleep 1000\n")
        await terminal.until("begun\r\n")
        await terminal.type("\x03")
        await terminal.type("echo $((130 + 0)) after\n")
        await terminal.until("130 after")
        await terminal.type("exit 5\n")
        assert await terminal.ended() == 5


async def test_interrupt_of_a_run(docker: DockerClient) -> None:
    script = (
        "busybox",
        "sh",
        "-c",
        "trap 'echo caught; exit 9' INT; echo ready; sleep 1000 & wait",
    )
    args = ("run", "--rm", "-it", "--network", "none", *script)
    async with DockerTerminal(docker, *args) as terminal:
        await terminal.until("ready")
        await terminal.type("\x03")
        await terminal.until("caught")
        assert await terminal.ended() == 9


async def test_detach_keys_leave_it_running(docker: DockerClient) -> None:
    async with DockerTerminal(docker, "run", "-it", "--name", "kept", "busybox", "sh") as terminal:
        await terminal.until("#")
        await terminal.type("\x10\x11")  # ^P ^Q
        assert await terminal.ended() == 0
    async with DockerTerminal(docker, "attach", "kept") as terminal:
        await terminal.type("\necho back $((1 + 1))\n")
        await terminal.until("back 2")
        await terminal.type("exit 0\n")
        assert await terminal.ended() == 0
