"""Containers that come from the pool of a real engine, seen from inside."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.integration.engine_process import EngineProcess, Json, build_shared_guest

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(240)]

CLOCK_TOLERANCE_S = 1.0
SMALL_BYTES = 128 * 1024 * 1024  # another shape than the pool's: a clone made for its container
# Each section begins with its name; what is in it depends on nothing but the container.
LOOK = """
echo "== hostname"; hostname
echo "== hosts"; cat /etc/hosts
echo "== boot_id"; cat /proc/sys/kernel/random/boot_id
echo "== random"; head -c 16 /dev/urandom | od -An -tx1
echo "== clock"; date +%s
echo "== processes"; ps -o pid,comm | sort
echo "== mounts"; cut -d' ' -f2-4 /proc/mounts | sed 's/lowerdir=.*//'
echo "== root"; ls -a /
echo "== cgroup"; cat /proc/self/cgroup
echo "== devices"; ls /dev
echo "== disk"; df -k / | tail -1 | cut -c1-20
"""


@dataclass
class Seen:
    """What a container found."""

    vm: Json
    container: Json
    began_s: float
    ended_s: float
    sections: dict[str, list[str]]


@pytest.fixture(scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EngineProcess]:
    """An engine that keeps two VMs waiting."""
    guest = await build_shared_guest(tmp_path_factory.mktemp("guest"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SLIPWAY_POOL_SIZE", "2")
        async with EngineProcess(tmp_path_factory.mktemp("engine"), guest) as engine:
            await engine.start()
            yield engine


async def look(engine: EngineProcess, name: str, **more: object) -> Seen:
    """Run the script in a container of its own; its VM is asked for while it runs."""
    began_s = time.time()
    script = f"{LOOK}\necho '== end'; sleep 1000"
    container = await engine.launch("sh", "-c", script, name=name, **more)
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    async for line in engine.follow(name):
        if line.startswith("== "):
            lines = sections.setdefault(line.removeprefix("== "), [])
        else:
            lines.append(line)
        if line == "== end":
            break
    vm = await engine.call("GET", f"/vms/{container['vm_id']}")
    seen = Seen(vm, container, began_s, time.time(), sections)
    await engine.call("DELETE", f"/containers/{name}", params={"force": True})
    return seen


async def test_containers_of_the_pool_are_as_new_as_those_of_clones(engine: EngineProcess) -> None:
    await engine.until_waiting(2)
    pooled = [await look(engine, f"pooled-{number}") for number in range(2)]
    other = await look(engine, "cloned", memory_bytes=SMALL_BYTES)
    assert [seen.vm["start_path"] for seen in (*pooled, other)] == ["pool", "pool", "clone"]
    for name in ("hostname", "boot_id", "random"):
        assert len({tuple(seen.sections[name]) for seen in (*pooled, other)}) == 3, name
    for name in ("processes", "mounts", "root", "cgroup", "devices", "hosts", "disk"):
        for seen in pooled:
            assert seen.sections[name] == other.sections[name], name
    for seen in pooled:
        assert seen.container["id"].startswith(seen.sections["hostname"][0])
        clock_s = int(seen.sections["clock"][0])
        assert seen.began_s - CLOCK_TOLERANCE_S <= clock_s <= seen.ended_s + CLOCK_TOLERANCE_S


async def test_pool_is_filled_again_and_serves_what_was_there_before(
    engine: EngineProcess,
) -> None:
    await engine.until_waiting(2)
    script = "cat /kept 2>/dev/null || echo new; echo kept > /kept"
    container = await engine.launch("sh", "-c", script, name="twice")
    await engine.until_exited(container["id"])
    await engine.until_waiting(2)
    await engine.call("POST", f"/containers/{container['id']}/start")
    await engine.until_exited(container["id"])
    assert await engine.log(container["id"]) == ["new", "kept"]
    events: list[Json] = await engine.call("GET", "/events", params={"actor_id": container["id"]})
    paths = [one["attributes"]["path"] for one in events if one["action"] == "start"]
    assert paths == ["pool", "pool"]
    await engine.call("DELETE", f"/containers/{container['id']}")


async def test_fault_of_the_container_is_told_as_by_any_path(engine: EngineProcess) -> None:
    await engine.until_waiting(1)
    for config in ({"command": ["no-such-program"]}, {"command": ["true"], "user": "nobody-here"}):
        body: Json = {"image": "busybox", "name": "faulty", **config}
        answer = await engine.client.post("/containers", params={"start": True}, json=body)
        assert not answer.is_success
        assert "no-such-program" in answer.text or "nobody-here" in answer.text, answer.text
        await engine.call("DELETE", "/containers/faulty", params={"force": True})
