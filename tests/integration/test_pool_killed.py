"""A real engine with a full pool is killed: the next one ends what waited, and fills its own."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.contract.qemu_lab import qemu_processes
from tests.integration.engine_process import EngineProcess, Json, build_shared_guest

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(240)]

SIZE = 2
FULL_WITHIN_S = 60.0


async def until_full(engine: EngineProcess) -> Json:
    """The pool as the host's document tells it, once nothing is missing."""
    async with asyncio.timeout(FULL_WITHIN_S):
        while True:
            pool: Json = (await engine.call("GET", "/hosts/local"))["pool"]
            if pool["waiting"] == SIZE:
                return pool
            await asyncio.sleep(0.1)


async def test_pool_of_a_killed_engine_is_ended_and_filled_anew(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_POOL_SIZE", str(SIZE))
    guest = await build_shared_guest(tmp_path_factory.mktemp("guest"))
    async with EngineProcess(tmp_path, guest) as engine:
        await engine.start()
        await until_full(engine)
        kept = await engine.launch("sleep", "1000", name="kept")
        assert (await engine.call("GET", f"/vms/{kept['vm_id']}"))["start_path"] == "pool"
        await until_full(engine)
        run_root = engine.data_dir / "v"
        before = await asyncio.to_thread(qemu_processes, run_root)
        assert len(before) == SIZE + 1
        await engine.kill()
        assert await asyncio.to_thread(qemu_processes, run_root) == before
        await engine.start()
        assert (await engine.call("GET", "/containers/kept"))["state"] == "running"
        [vm] = await engine.call("GET", "/vms")
        assert vm["container_id"] == kept["id"]
        left = before.keys() & (await asyncio.to_thread(qemu_processes, run_root)).keys()
        assert left == {kept["pid"]}
        await until_full(engine)
        log = await asyncio.to_thread((tmp_path / "engine.log").read_text)
        assert "belongs to nobody" not in log
        await engine.terminate()
        assert set(await asyncio.to_thread(qemu_processes, run_root)) == {kept["pid"]}
        text = await engine.run_command("stop", "--all")
        assert "1 stopped, 0 failed." in text
        assert not await asyncio.to_thread(qemu_processes, run_root)
        names = await asyncio.to_thread(os.listdir, engine.data_dir / "scratch")
        assert [name for name in names if not name.startswith(".")] == [f"{kept['id']}.ext4"]
