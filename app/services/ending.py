"""How runs end: the codes and words that their container's record gets."""

from dataclasses import dataclass

from app.core.errors import GuestFailed, SlipwayError
from app.domain.vm import VmEndReason
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
