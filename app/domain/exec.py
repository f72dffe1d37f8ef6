"""Further processes in a container."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class ExecConfig:
    """A process to run beside the container's own; empty means as the container's.

    Attributes:
        stdin: It has an input; else it reads from /dev/null.
        stdout, stderr: What its starter wants to see.
        privileged: With every capability.
        detach_keys: What leaves its terminal, as Docker writes keys; empty: the usual ones.
    """

    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    tty: bool = False
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    privileged: bool = False
    detach_keys: str = ""

    @property
    def shown_command(self) -> str:
        """The command as Docker writes it into events."""
        return f"{self.command[0]} {' '.join(self.command[1:])}"


class ExecState(StrEnum):
    """Life of an exec."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True)
class ExecView:
    """An exec as shown.

    Attributes:
        exit_code: None before its end.
        pid: In the guest; 0 before its start.
    """

    id: str
    container_id: str
    config: ExecConfig
    state: ExecState = ExecState.CREATED
    exit_code: int | None = None
    pid: int = 0

    @property
    def is_running(self) -> bool:
        """Whether its process exists, or is about to."""
        return self.state in {ExecState.STARTING, ExecState.RUNNING}
