"""The processes of a running container."""

import logging

from app.domain import container as rules
from app.domain.processes import GuestProcess, Moment, format_processes, parse_stat
from app.services.registry import ContainerRegistry
from app.services.supervisor import Supervisor

logger = logging.getLogger(__name__)


class ProcessService:
    """Asks the guest; a container needs no `ps` of its own."""

    def __init__(self, registry: ContainerRegistry, supervisor: Supervisor) -> None:
        self._registry = registry
        self._supervisor = supervisor

    async def top(self, reference: str, ps_args: str) -> tuple[list[str], list[list[str]]]:
        """Titles and rows, as `ps` with these arguments gives them.

        Raises:
            NotFound: No such container.
            NotRunning, IsPaused: It has no processes to ask for.
            InvalidArgument: The arguments are not understood.
        """
        container = await self._registry.find(reference)
        if container.state is not rules.ContainerState.PAUSED:
            rules.require_running(container, "list the processes of")
        run = self._supervisor.run_of(container)
        found = await run.agent.processes(container.id)
        processes: list[GuestProcess] = []
        for entry in found.processes:
            try:
                processes.append(
                    parse_stat(
                        entry.stat,
                        user=entry.user,
                        args=entry.args,
                        boot_ns=found.time_ns - found.uptime_ns,
                    )
                )
            except (ValueError, IndexError):
                logger.warning("Process %d of %s is not readable", entry.pid, container.name)
        moment = Moment(found.time_ns, run.vm.spec.memory_bytes)
        return format_processes(processes, ps_args, moment)
