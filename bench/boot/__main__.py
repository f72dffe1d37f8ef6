"""Cold boot of the real guest by stage, from the process of the hypervisor to the agent's answer.

Builds the guest if it has to, boots it several times, one VM at a time, by the engine's own way
into QEMU, and prints one JSON line per stage: where the stage ends, in milliseconds after the VM's
process began. Usage: PYTHONPATH=. python bench/boot [--runs 5] [--accelerator auto|kvm|tcg]
[--memory-mib 1024] [--vcpus 2] [--cache DIRECTORY] [--cmdline 'more options']

Stages: `firmware` (process, firmware, loading, calibration; then the kernel has a clock), `kernel`
(the agent begins as process 1), `mounts`, `modules` (those of the channel), `port`, `agent` (its
answer is here). The last line, `cpu`, is the CPU time of the VM's process, which other load on the
machine disturbs least.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from app.core.ids import new_vm_id
from app.core.units import MIB
from app.domain.vm import VmEndReason
from app.guest.frames import FrameParser
from app.guest.handshake import resync
from app.guest.image import GuestImage, build_guest
from app.hypervisor.port import Vm, VmSpec
from app.hypervisor.qemu.hypervisor import QemuHypervisor
from app.resources import guest_dir

AGENT_DEADLINE_S = 60.0
TARGET_MS = 2000


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@asynccontextmanager
async def running(hypervisor: QemuHypervisor, spec: VmSpec) -> AsyncIterator[Vm]:
    vm = await hypervisor.create(spec)
    try:
        yield vm
    finally:
        await vm.stop(VmEndReason.STOPPED, grace_s=0)
        await vm.discard()


async def boot_once(hypervisor: QemuHypervisor, spec: VmSpec) -> dict[str, float]:
    """End of each stage, milliseconds after the VM's process began; and CPU time as `cpu`."""
    began_s = time.monotonic()
    async with running(hypervisor, replace(spec, id=new_vm_id())) as vm:
        reader, writer = await vm.open_channel()
        try:
            hello = await resync(reader, writer, FrameParser(), timeout_s=AGENT_DEADLINE_S)
            ended_s = time.monotonic()
            cpu_ms = (await vm.stats()).cpu_ns / 1e6
        finally:
            writer.close()
    kernel_began_s = ended_s - hello.uptime_ns / 1e9
    ends_s = {"firmware": kernel_began_s}
    ends_s |= {stage.name: kernel_began_s + stage.at_ns / 1e9 for stage in hello.stages}
    ends_s["agent"] = ended_s
    return {name: (end_s - began_s) * 1e3 for name, end_s in ends_s.items()} | {"cpu": cpu_ms}


def report(runs: list[dict[str, float]], accelerator: str, guest: GuestImage) -> None:
    for name in runs[0]:
        values = [run[name] for run in runs]
        line: dict[str, object] = {
            "bench": "boot",
            "stage": name,
            "min_ms": round(min(values)),
            "median_ms": round(statistics.median(values)),
            "max_ms": round(max(values)),
            "runs": len(values),
            "accelerator": accelerator,
            "kernel": guest.kernel_version,
        }
        if name == "agent":
            line["target_ms"] = TARGET_MS
        print(json.dumps(line), flush=True)


async def measure(options: argparse.Namespace, directory: Path) -> None:
    guest = await build_guest(
        guest_dir() / "slipway.yml",
        cache_dir=options.cache or directory / "guest",
        agent_source_dir=guest_dir() / "agent",
        progress=say,
    )
    spec = VmSpec(
        id=new_vm_id(),
        vcpus=options.vcpus,
        memory_bytes=options.memory_mib * MIB,
        kernel=guest.kernel,
        initrd=guest.initrd,
        cmdline=f"{guest.cmdline} {options.cmdline}".strip(),
        disks=(),
        labels={},
    )
    hypervisor = QemuHypervisor(run_root=directory / "v", accelerator=options.accelerator)
    try:
        accelerator = await hypervisor.accelerator()
        runs = [await boot_once(hypervisor, spec) for _ in range(options.runs)]
    finally:
        await hypervisor.close()
    report(runs, accelerator.name, guest)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/boot")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--accelerator", choices=("auto", "kvm", "tcg"), default="auto")
    parser.add_argument("--memory-mib", type=int, default=1024)
    parser.add_argument("--vcpus", type=int, default=2)
    parser.add_argument("--cache", type=Path, help="where built guests are kept")
    parser.add_argument("--cmdline", default="", help="appended to the kernel's command line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="slipway-boot-") as directory:
        asyncio.run(measure(options, Path(directory)))


main()
