"""The product from end to end without a browser: a real engine process, real VMs, REST."""

import asyncio
import contextlib
import os
import signal
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.engine_process import EngineProcess, build_shared_guest

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(240)]

MIB = 1 << 20


@pytest.fixture(scope="module")
async def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped guest."""
    return await build_shared_guest(tmp_path_factory.mktemp("guest"))


@pytest.fixture(scope="module")
async def engine(
    guest: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EngineProcess]:
    """One engine for the tests that don't harm it."""
    async with EngineProcess(tmp_path_factory.mktemp("engine"), guest) as engine:
        await engine.start()
        yield engine


@pytest.fixture
async def own_engine(guest: Path, tmp_path: Path) -> AsyncIterator[EngineProcess]:
    """An engine that a test may kill."""
    async with EngineProcess(tmp_path, guest) as engine:
        await engine.start()
        yield engine


async def test_main_job(engine: EngineProcess) -> None:
    loop = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.2; done"
    container = await engine.launch("sh", "-c", loop, name="loop")
    assert [stage["name"] for stage in container["boot_stages"]]
    seen = []
    async for text in engine.follow("loop"):
        seen.append(text)
        if len(seen) == 3:
            break
    assert seen == ["line 0", "line 1", "line 2"]
    stopped = await engine.call("POST", "/containers/loop/stop", params={"timeout_s": 1})
    assert (stopped["state"], stopped["exit_code"]) == ("exited", 137)
    await engine.call("DELETE", "/containers/loop")
    assert not list((engine.data_dir / "v").glob(f"{container['vm_id']}*"))
    assert not list((engine.data_dir / "scratch").glob(f"*{container['id']}*"))


async def test_container_sees_what_was_asked_for(engine: EngineProcess) -> None:
    container = await engine.launch(
        "sleep", "1000",
        name="asked", env=["GREETING=hello"], user="nobody", working_dir="/srv/new",
        hostname="quay", memory_bytes=64 * MIB, pids_limit=20, cpus=0.5, init=True,
    )  # fmt: skip
    try:
        script = (
            "id -un; pwd; hostname; echo $GREETING; cat /proc/1/comm;"
            "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max;"
            "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status; ls /sys/class/net"
        )
        code, text = await engine.exec("asked", "sh", "-c", script)
        words = text.split()
        assert code == 0
        assert words[:4] == ["nobody", "/srv/new", "quay", "hello"]
        assert words[5:9] == [str(64 * MIB), "20", "50000", "100000"]
        assert words[-5:] == ["NoNewPrivs:", "0", "Seccomp:", "2", "lo"]
    finally:
        await engine.call("DELETE", f"/containers/{container['id']}", params={"force": True})


async def test_pause_holds_and_unpause_goes_on(engine: EngineProcess) -> None:
    await engine.launch("sh", "-c", "while :; do echo x; sleep 0.05; done", name="paused")
    lines = engine.follow("paused")
    await anext(lines)
    assert (await engine.call("POST", "/containers/paused/pause"))["state"] == "paused"
    held = len(await engine.log("paused"))
    await asyncio.sleep(1)  # nothing happens: there is no event to wait for
    assert len(await engine.log("paused")) <= held + 1
    assert (await engine.call("POST", "/containers/paused/unpause"))["state"] == "running"
    for _ in range(3):
        await anext(lines)
    await engine.call("DELETE", "/containers/paused", params={"force": True})


async def test_stdin_and_tty(engine: EngineProcess) -> None:
    await engine.launch("cat", name="cat", stdin_open=True)
    data = b"".join(b"%d\n" % number for number in range(20_000))
    await engine.call("POST", "/containers/cat/stdin", content=data, params={"close": True})
    assert await engine.call("POST", "/containers/cat/wait") == {"exit_code": 0}
    assert await engine.log("cat") == [str(number) for number in range(20_000)]
    await engine.launch("sh", "-c", "stty size; tty", name="tty", tty=True)
    await engine.until_exited("tty")
    assert (await engine.log("tty"))[-1].strip() == "/dev/pts/0"
    for name in ("cat", "tty"):
        await engine.call("DELETE", f"/containers/{name}")


async def test_container_runs_out_of_memory_and_not_the_guest(engine: EngineProcess) -> None:
    await engine.launch("tail", "/dev/zero", name="greedy", memory_bytes=32 * MIB)
    ended = await engine.until_exited("greedy")
    assert (ended["exit_code"], ended["oom_killed"], ended["error"]) == (137, True, "")
    await engine.call("DELETE", "/containers/greedy")


async def test_command_that_is_not_there(engine: EngineProcess) -> None:
    body = {"image": "busybox", "command": ["no-such-program"], "name": "missing"}
    answer = await engine.client.post("/containers", params={"start": True}, json=body)
    assert answer.status_code == 400
    assert "no-such-program" in answer.json()["detail"]
    failed = await engine.call("GET", "/containers/missing")
    assert (failed["state"], failed["exit_code"]) == ("created", 127)
    await engine.call("DELETE", "/containers/missing")


async def test_killed_vm_is_told_within_five_seconds(engine: EngineProcess) -> None:
    container = await engine.launch("sleep", "1000", name="victim")
    os.kill(container["pid"], signal.SIGKILL)
    async with asyncio.timeout(5):
        ended = await engine.until_exited("victim")
    assert ended["exit_code"] == 137
    assert "killed" in ended["error"].lower()
    await engine.call("DELETE", "/containers/victim")


async def test_stopped_vm_is_shown_unresponsive_within_five_seconds(engine: EngineProcess) -> None:
    container = await engine.launch("sleep", "1000", name="stuck")
    os.kill(container["pid"], signal.SIGSTOP)
    try:
        async with asyncio.timeout(6):
            await engine.until("stuck", lambda each: each["unresponsive_since"] is not None)
    finally:
        os.kill(container["pid"], signal.SIGCONT)
    await engine.until("stuck", lambda each: each["unresponsive_since"] is None)
    await engine.call("DELETE", "/containers/stuck", params={"force": True})


async def test_hundred_thousand_lines_and_nobody_else_waits(engine: EngineProcess) -> None:
    count = 100_000
    await engine.launch("sleep", "1000", name="other")
    await engine.launch("seq", str(count), name="flood")
    _reader, writer = await asyncio.open_connection("127.0.0.1", engine.port)
    try:  # a viewer that never reads
        token = engine.client.headers["authorization"]
        request = (
            "GET /api/v1/containers/flood/logs?follow=true HTTP/1.1\r\n"
            f"Host: localhost\r\nAuthorization: {token}\r\n\r\n"
        )
        writer.write(request.encode())
        await writer.drain()
        began_s = time.monotonic()
        assert await engine.exec("other", "echo", "hi") == (0, "hi\n")
        assert time.monotonic() - began_s < 5
        await engine.until_exited("flood")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    assert await engine.log("flood") == [str(number) for number in range(1, count + 1)]
    for name in ("other", "flood"):
        await engine.call("DELETE", f"/containers/{name}", params={"force": True})


async def test_kill_9_loses_and_repeats_nothing(own_engine: EngineProcess) -> None:
    engine = own_engine
    script = "i=0; while :; do i=$((i+1)); echo $i; [ $((i % 50)) = 0 ] && sleep 0.02; done"
    container = await engine.launch("sh", "-c", script, name="numbers")
    for _ in range(3):
        lines = engine.follow("numbers")
        for _ in range(200):
            await anext(lines)
        await engine.kill()
        await engine.start()
        found = await engine.call("GET", "/containers/numbers")
        assert (found["state"], found["vm_id"]) == ("running", container["vm_id"])
    async for text in engine.follow("numbers"):
        if int(text) > 2000:
            break
    await engine.call("POST", "/containers/numbers/stop", params={"timeout_s": 0})
    log = await engine.log("numbers")
    assert log == [str(number) for number in range(1, len(log) + 1)]


def runs(pid: int) -> bool:
    """Whether the process runs: one that has ended may wait a moment until init reaps it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


async def test_sigterm_leaves_containers_running_and_stop_all_ends_them(
    own_engine: EngineProcess,
) -> None:
    engine = own_engine
    container = await engine.launch("sleep", "1000", name="goes-on")
    await engine.terminate()
    os.kill(container["pid"], 0)
    text = await engine.run_command("stop", "--all")
    assert "goes-on" in text
    assert not runs(container["pid"])
    await engine.start()
    ended = await engine.call("GET", "/containers/goes-on")
    assert ended["state"] == "exited"


async def test_what_was_written_last_is_there_for_the_next_start(
    own_engine: EngineProcess,
) -> None:
    """The end is told while the disk is still being saved; the next start waits for that."""
    engine = own_engine
    write = "head -c 8000000 /dev/urandom > /data; md5sum /data > /sum"
    trap = f"trap '{write}; exit 0' TERM"
    script = f"{trap}; [ -f /sum ] && md5sum -c /sum; echo up; sleep 1000 & wait"
    await engine.launch("sh", "-c", script, name="writer")

    async def until_up(starts: int) -> None:
        async with asyncio.timeout(60):
            async for text in engine.follow("writer"):
                starts -= text == "up"
                if not starts:
                    return
        raise AssertionError("it has ended")

    async def stop() -> None:
        stopped = await engine.call("POST", "/containers/writer/stop")
        assert (stopped["state"], stopped["exit_code"]) == ("exited", 0)

    await until_up(1)
    await stop()
    await engine.call("POST", "/containers/writer/start")
    await until_up(2)
    await stop()
    await engine.kill()
    await engine.start()
    await engine.call("POST", "/containers/writer/start")
    await until_up(3)
    assert await engine.log("writer") == ["up", "/data: OK", "up", "/data: OK", "up"]
    assert len(await engine.call("GET", "/vms")) == 1
    await engine.call("DELETE", "/containers/writer", params={"force": True})
    assert not await engine.call("GET", "/vms")


async def test_import_of_two_gigabytes_stays_small(own_engine: EngineProcess) -> None:
    engine = own_engine
    idle_kib = memory_kib(engine.pid)
    peak_kib = idle_kib

    async def archive() -> AsyncIterator[bytes]:
        nonlocal peak_kib
        size_bytes = 2 << 30
        header = tar_header("big", size_bytes)
        yield header
        block = os.urandom(MIB)
        for number in range(size_bytes // MIB):
            yield block
            if number % 64 == 0:
                peak_kib = max(peak_kib, memory_kib(engine.pid))
        yield bytes(1024)

    imported = await engine.client.post(
        "/images", params={"reference": "big:1"}, content=archive(), timeout=200
    )
    assert imported.status_code == 201, imported.text
    peak_kib = max(peak_kib, memory_kib(engine.pid))
    assert peak_kib - idle_kib < 64 * 1024, f"{(peak_kib - idle_kib) / 1024:.0f} MiB"
    removed = await engine.call("DELETE", "/images/big:1")
    assert removed["freed_bytes"] > 0


def memory_kib(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def tar_header(name: str, size_bytes: int) -> bytes:
    """A ustar header."""
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    return info.tobuf(tarfile.GNU_FORMAT)
