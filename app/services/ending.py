"""How runs end: the codes and words that their container's record gets."""

from dataclasses import dataclass

from app.core.errors import GuestFailed, SlipwayError
from app.domain.container import Container, ContainerState
from app.domain.vm import VmEndReason
from app.guest.agent import INIT_PROCESS_ID
from app.guest.hello import HelloInfo
from app.guest.protocol import ProcessState
from app.hypervisor.port import VmExit
from app.services.run import Run

EXIT_CODE_KILLED = 137
# What Docker answers when a command can't be run (moby, daemon/start.go and errdefs).
EXIT_CODE_NOT_FOUND = 127
EXIT_CODE_NOT_EXECUTABLE = 126
EXIT_CODE_START_FAILED = 128
_ENOENT, _ENOEXEC, _EACCES, _ENOTDIR, _EISDIR = 2, 8, 13, 20, 21


@dataclass(frozen=True)
class Ending:
    """How a run ended, for the record."""

    exit_code: int
    oom_killed: bool = False
    error: str = ""
    at_ns: int | None = None


def ending_of_adopted(container: Container, vm_id: str, hello: HelloInfo) -> Ending | None:
    """What to record of a live container whose VM an earlier engine left; None if it goes on."""
    if container.state is ContainerState.STOPPING and container.finished_at_ns is not None:
        return Ending(container.exit_code, container.oom_killed, container.error)
    process = next(
        (
            info
            for info in hello.processes
            if info.process_id == INIT_PROCESS_ID and info.container_id == container.id
        ),
        None,
    )
    # A start that waited for the VM of the run before knows none yet: this is that one.
    is_of_run_before = container.vm_id != vm_id
    if process is None or process.state is ProcessState.CREATED or is_of_run_before:
        return Ending(
            EXIT_CODE_START_FAILED,
            error="The engine ended while the container was starting; start it again.",
        )
    return None


def ending_of_vanished(run: Run, vm_exit: VmExit) -> Ending | SlipwayError:
    """What to record of a run whose VM ended before its time; an error if it never started."""
    detail = run.fault.message if run.fault is not None else vm_exit.detail
    if run.init_exit.done():
        seen = run.init_exit.result()
        return Ending(seen.exit_code, seen.oom_killed, detail, seen.time_ns)
    if not run.is_started:
        return SlipwayError(
            f"The VM ended before the container ran: {detail}",
            advice="See the boot console.",
        )
    out_of_memory = vm_exit.reason is VmEndReason.OUT_OF_HOST_MEMORY
    return Ending(EXIT_CODE_KILLED, out_of_memory, detail)


def exit_code_of(error: SlipwayError) -> int:
    """The exit code that Docker shows for a command that could not be started."""
    if isinstance(error, GuestFailed):
        if error.errno in {_ENOENT, _ENOTDIR}:
            return EXIT_CODE_NOT_FOUND
        if error.errno in {_EACCES, _EISDIR, _ENOEXEC}:
            return EXIT_CODE_NOT_EXECUTABLE
    return EXIT_CODE_START_FAILED
