"""Reading what earlier engines left in the run root; blocking."""

import contextlib
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import CorruptData
from app.hypervisor.port import VmExit, VmSpec
from app.hypervisor.qemu.ending import Evidence, conclude
from app.hypervisor.qemu.launch import console_file, stderr_file
from app.hypervisor.qemu.process import VmProcess, start_ticks
from app.hypervisor.qemu.rundir import ProcessRecord, RunDirectory

log = logging.getLogger(__name__)

PROBE_LABEL = "slipway.probe"  # of VMs that only tried an accelerator: never given back
EVIDENCE_BYTES = 8192

_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Running:
    """A VM whose process lives and is held."""

    directory: RunDirectory
    spec: VmSpec
    process: VmProcess
    record: ProcessRecord


@dataclass(frozen=True)
class Ended:
    """A VM that ended while no engine looked, or was not discarded by the last one."""

    directory: RunDirectory
    spec: VmSpec
    record: ProcessRecord | None
    exit: VmExit


def list_run_directories(run_root: Path) -> list[Path]:
    """Run directories, by id."""
    if not run_root.is_dir():
        return []
    return sorted(path for path in run_root.iterdir() if _ID.fullmatch(path.name))


def inspect(path: Path) -> Running | Ended | None:
    """Find out about one run directory; None if there is nothing to give back.

    The proof of life is the lock that the process inherited; the recorded process id is believed
    only together with its start time, and found by /proc where it is missing (an engine may have
    died between the two). A directory without a readable record is removed, its process killed;
    likewise VMs of which only their own engine could make use.
    """
    directory = RunDirectory(path)
    is_alive = directory.is_locked()
    process = _hold(directory) if is_alive else None
    if is_alive and process is None:
        log.warning("The process of VM %s is not to be found; left alone", directory.id)
        return None
    try:
        spec = directory.read_spec()
    except CorruptData as exc:
        log.warning("%s; its remains are removed", exc.message)
        spec = None
    if spec is None or _is_means_to_an_end(directory, spec):
        _remove(directory, process)
        return None
    record = directory.read_process()
    if process is None:
        return Ended(directory, spec, record, _how_it_ended(directory, record))
    if record is None or record.pid != process.pid:
        record = ProcessRecord(process.pid, process.ticks, _started_at_ns(process.ticks))
        directory.write_process(record)
    return Running(directory, spec, process, record)


def _is_means_to_an_end(directory: RunDirectory, spec: VmSpec) -> bool:
    """Whether only the engine that made the VM had a use for it."""
    return PROBE_LABEL in spec.labels or spec.for_template or directory.is_restoring


def _hold(directory: RunDirectory) -> VmProcess | None:
    record = directory.read_process()
    if record is not None and (process := VmProcess.hold(record.pid, record.start_ticks)):
        return process
    pid = directory.find_holder()
    ticks = start_ticks(pid) if pid is not None else None
    return VmProcess.hold(pid, ticks) if pid is not None and ticks is not None else None


def _remove(directory: RunDirectory, process: VmProcess | None) -> None:
    if process is not None:
        process.kill_and_reap()
        process.close()
    directory.remove()


def _how_it_ended(directory: RunDirectory, record: ProcessRecord | None) -> VmExit:
    recorded = directory.read_exit()
    if recorded is not None:
        return recorded
    evidence = Evidence(
        stderr=stderr_file(directory).read_tail(EVIDENCE_BYTES),
        console_tail=console_file(directory).read_tail(EVIDENCE_BYTES),
    )
    vm_exit = (
        conclude(evidence, pid=record.pid, start_ticks=record.start_ticks)
        if record is not None
        else conclude(evidence, pid=-1, start_ticks=0)
    )
    directory.remove_runtime()
    with contextlib.suppress(OSError):
        directory.write_exit(vm_exit)
    return vm_exit


def _started_at_ns(ticks: int) -> int:
    """Wall clock of a start time in ticks since the host booted (proc_stat(5): btime)."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            boot_s = int(line.split()[1])
            return boot_s * 10**9 + ticks * 10**9 // os.sysconf("SC_CLK_TCK")
    return 0
