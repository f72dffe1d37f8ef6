"""Clones of one VM, seen by the containers in them: nothing alike, and memory comes back."""

import asyncio
import hashlib
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.core.units import MIB
from app.hypervisor.qemu.process import pss_bytes
from tests.integration.clone_probe import IMAGE, import_probe
from tests.integration.engine_process import EngineProcess, Json, build_shared_guest

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(240)]

CLONES = 50
BATCH = 10
CLOCK_TOLERANCE_S = 1.0
TEMPLATE_FILE = "slipway-template"  # name of the anonymous file
MOST_MIB = 840  # more than the module has, so that the template's part is used as well
HELD_MIB = 512
BACK_WITHIN_BYTES = 60 * MIB
BACK_WITHIN_S = 30.0
# Linux adds the time in units of 64 ns to a hash of addresses, ports and a secret.
SEQUENCE_UNIT_NS = 64
SEQUENCE_TOLERANCE = 1 << 22  # a quarter of a second


@pytest.fixture(scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EngineProcess]:
    """An engine that has the probe's image, and no pool."""
    guest = await build_shared_guest(tmp_path_factory.mktemp("guest"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SLIPWAY_POOL_SIZE", "0")
        async with EngineProcess(tmp_path_factory.mktemp("engine"), guest) as engine:
            await engine.start()
            await engine.until_template()
            await import_probe(engine, tmp_path_factory.mktemp("probe"))
            yield engine


@dataclass
class Seen:
    """What one container found, and when the host had it run."""

    container_id: str
    start_path: str | None
    began_s: float
    ended_s: float
    values: dict[str, str] = field(default_factory=dict)
    sequences: list[int] = field(default_factory=list)  # without the part that is the time

    def take(self, line: str) -> None:
        """One line of the probe's output."""
        name, _, value = line.partition("=")
        if name == "sequence":
            number, _, at_ns = value.partition(" at ")
            self.sequences.append((int(number) - int(at_ns) // SEQUENCE_UNIT_NS) % (1 << 32))
        else:
            self.values[name] = value


async def look(engine: EngineProcess, name: str) -> Seen:
    """Run the probe in a container of its own."""
    began_s = time.time()
    body = {"image": IMAGE, "command": ["/probe", "unique"], "name": name}
    container: Json = await engine.call("POST", "/containers", params={"start": True}, json=body)
    lines = [line async for line in until_done(engine, name)]
    vm = await engine.call("GET", f"/vms/{container['vm_id']}")
    seen = Seen(container["id"], vm["start_path"], began_s, time.time())
    for line in lines:
        seen.take(line)
    await engine.call("DELETE", f"/containers/{name}", params={"force": True})
    return seen


async def until_done(engine: EngineProcess, name: str) -> AsyncIterator[str]:
    """The probe's output up to its last line."""
    async for line in engine.follow(name):
        yield line
        if line == "done=yes":
            return


def is_alike(one: list[int], other: list[int]) -> bool:
    """Whether both make sequence numbers by the same secret: then every one differs by little."""
    apart = [(a - b) % (1 << 32) for a, b in zip(one, other, strict=True)]
    return all(min(each, (1 << 32) - each) < SEQUENCE_TOLERANCE for each in apart)


async def test_fifty_clones_have_nothing_in_common(engine: EngineProcess) -> None:
    seen: list[Seen] = []
    for first in range(0, CLONES, BATCH):
        names = [f"clone-{number}" for number in range(first, first + BATCH)]
        async with asyncio.timeout(120):
            seen += await asyncio.gather(*(look(engine, name) for name in names))
    for name in ("getrandom", "urandom", "at_random", "addresses", "boot_id", "hostname"):
        values = Counter(one.values[name] for one in seen)
        assert len(values) == CLONES, (name, values.most_common(2))
    for one in seen:
        assert one.container_id.startswith(one.values["hostname"])
        clock_s = int(one.values["time_ns"]) / 1e9
        assert one.began_s - CLOCK_TOLERANCE_S < clock_s < one.ended_s + CLOCK_TOLERANCE_S
        assert set(one.values["getrandom"]) != {"0"}
    machine_ids = [one.values["machine_id"] for one in seen if one.values["machine_id"]]
    assert len(set(machine_ids)) == len(machine_ids)
    assert len({one.container_id for one in seen}) == CLONES
    for one, other in itertools.combinations(seen, 2):
        assert not is_alike(one.sequences, other.sequences)
    assert {one.start_path for one in seen} <= {"clone", "pool"}  # those of the pool are clones too


async def test_memory_that_is_freed_comes_back_to_the_host(engine: EngineProcess) -> None:
    body = {"image": IMAGE, "command": ["/probe", "stay"], "name": "frees"}
    container: Json = await engine.call("POST", "/containers", params={"start": True}, json=body)
    try:
        before = resident_bytes(container["pid"])
        holding = asyncio.create_task(engine.exec("frees", "/probe", "hold", str(HELD_MIB)))
        most = before
        while not holding.done():
            most = max(most, resident_bytes(container["pid"]))
            await asyncio.wait({holding}, timeout=0.1)
        assert holding.result() == (0, "full\nfreed\n")
        assert most > before + HELD_MIB * MIB * 0.9
        deadline_s = time.monotonic() + BACK_WITHIN_S
        while (now := resident_bytes(container["pid"])) > before + BACK_WITHIN_BYTES:
            assert time.monotonic() < deadline_s, f"{(now - before) / MIB:.0f} MiB are not back"
            await asyncio.sleep(0.2)  # nobody tells when memory has been given back
    finally:
        await engine.call("DELETE", "/containers/frees", params={"force": True})


async def test_guest_that_frees_and_overwrites_all_changes_nobody_else(
    engine: EngineProcess,
) -> None:
    body: Json = {"image": IMAGE, "command": ["/probe", "stay"]}
    names = ["attacker", "sibling-1", "sibling-2", "sibling-3"]
    vms: list[Json] = [
        await engine.call("POST", "/containers", params={"start": True}, json=body | {"name": name})
        for name in names
    ]
    attacker, siblings = vms[0], [vm["pid"] for vm in vms[1:]]
    complaints = engine.data_dir / "v" / attacker["vm_id"] / "stderr.log"
    try:
        for pid in siblings:  # held, so that nothing but the attack can change them
            os.kill(pid, signal.SIGSTOP)
        before = [template_sha256(attacker["pid"])]
        before += [await asyncio.to_thread(memory_sha256, pid) for pid in siblings]
        assert await engine.exec("attacker", "/probe", "hold", str(MOST_MIB)) == (
            0,
            "full\nfreed\n",
        )
        async with asyncio.timeout(BACK_WITHIN_S):
            # QEMU says so each time that it was not let punch a hole into the template.
            while not (complaints.exists() and "discard" in complaints.read_text()):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        after = [template_sha256(attacker["pid"])]
        after += [await asyncio.to_thread(memory_sha256, pid) for pid in siblings]
        assert after == before
        assert len(set(before)) == len(before)
    finally:
        for pid in siblings:
            os.kill(pid, signal.SIGCONT)
        for name in names:
            await engine.call("DELETE", f"/containers/{name}", params={"force": True})


async def test_engine_that_was_killed_finds_its_template_in_a_clone(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_POOL_SIZE", "0")
    guest = await build_shared_guest(tmp_path_factory.mktemp("guest"))
    async with EngineProcess(tmp_path, guest) as engine:
        await engine.start()
        await engine.until_template()
        before = await engine.launch("sleep", "1000", name="before")
        await engine.kill()
        await engine.start()
        await engine.until_template()
        assert (await engine.call("GET", "/containers/before"))["state"] == "running"
        after = await engine.launch("sleep", "1000", name="after")
        vm = await engine.call("GET", f"/vms/{after['vm_id']}")
        assert vm["start_path"] == "clone"
        assert template_file(before["pid"]).samefile(template_file(after["pid"]))
        for name in ("before", "after"):
            await engine.call("DELETE", f"/containers/{name}", params={"force": True})


def template_file(pid: int) -> Path:
    """The memory of its template, among a clone's descriptors."""
    entries = Path(f"/proc/{pid}/fd").iterdir()
    return next(entry for entry in entries if TEMPLATE_FILE in str(entry.readlink()))


def template_sha256(pid: int) -> str:
    """The bytes of the template's memory that a clone has a descriptor of."""
    with template_file(pid).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def memory_sha256(pid: int) -> str:
    """A clone's own view of the memory that began as the template's."""
    digest = hashlib.sha256()
    process = Path(f"/proc/{pid}")
    with (process / "maps").open() as maps, (process / "mem").open("rb", buffering=0) as memory:
        for line in maps:
            if TEMPLATE_FILE in line:
                first, last = (int(number, 16) for number in line.split()[0].split("-"))
                memory.seek(first)
                while first < last:
                    data = memory.read(min(MIB, last - first))
                    first += len(data)
                    digest.update(data)
    assert digest.digest() != hashlib.sha256().digest()
    return digest.hexdigest()


def resident_bytes(pid: int) -> int:
    """PSS of a VM, as the host accounts it."""
    sizes = pss_bytes(pid)
    assert sizes is not None
    return sizes[0]
