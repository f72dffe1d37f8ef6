"""The agent's operations as typed calls over a `GuestChannel`.

Every method raises what `GuestChannel.request` raises. Operations run at most once, however often
the connection breaks meanwhile.
"""

from app.guest.agent_types import (
    AgentEvent,
    ContainerSpec,
    CreateResult,
    GuestStats,
    Limits,
    ProcessSpec,
    container_fields,
    decode_event,
    decode_stats,
    limit_fields,
    process_fields,
)
from app.guest.channel import GuestChannel
from app.guest.fields import FieldValue
from app.guest.hello import decode_stages
from app.guest.process_list import ProcessList, decode_processes
from app.guest.protocol import Op, Tag

INIT_PROCESS_ID = "init"  # the first process of a container (docs/channel.md)


class Agent:
    """Operations of one guest."""

    def __init__(self, channel: GuestChannel) -> None:
        self.channel = channel

    async def set_clock(self, time_ns: int, *, timeout_s: float = 10.0) -> int:
        """Set the guest's clock (nanoseconds since the epoch) and return what it showed before.

        It steps if it was off by 0.5 s or more, else slews.
        """
        result = await self.channel.request(
            Op.SET_CLOCK, [(Tag.TIME_NS, time_ns)], timeout_s=timeout_s
        )
        return result.number(Tag.TIME_NS)

    async def seed_entropy(self, data: bytes, *, timeout_s: float = 10.0) -> None:
        """Give the guest's random generator fresh entropy and let it reseed."""
        await self.channel.request(Op.SEED_ENTROPY, [(Tag.DATA, data)], timeout_s=timeout_s)

    async def create(self, spec: ContainerSpec, *, timeout_s: float = 60.0) -> CreateResult:
        """Prepare the container up to the point before `execve` of its first process.

        Open `spec.process.output_stream` afterwards, then `start`. After a failure the guest has
        undone everything.
        """
        result = await self.channel.request(Op.CREATE, container_fields(spec), timeout_s=timeout_s)
        return CreateResult(result.number(Tag.PID), decode_stages(result))

    async def start(self, container_id: str, *, timeout_s: float = 30.0) -> None:
        """Let the first process go; returns once its `execve` has succeeded."""
        await self._on_container(Op.START, container_id, timeout_s)

    async def exec(
        self, container_id: str, process_id: str, spec: ProcessSpec, *, timeout_s: float = 30.0
    ) -> int:
        """Run a further process; returns its pid in the guest once `execve` has succeeded."""
        result = await self.channel.request(
            Op.EXEC,
            [
                (Tag.CONTAINER, container_id),
                (Tag.PROCESS_ID, process_id),
                (Tag.PROCESS_SPEC, process_fields(spec)),
            ],
            timeout_s=timeout_s,
        )
        return result.number(Tag.PID)

    async def signal(
        self,
        container_id: str,
        signal_number: int,
        *,
        process_id: str = INIT_PROCESS_ID,
        timeout_s: float = 10.0,
    ) -> None:
        """Send a signal (Linux number) to a process; GuestFailed ESRCH if it has ended."""
        await self.channel.request(
            Op.SIGNAL,
            [
                (Tag.CONTAINER, container_id),
                (Tag.PROCESS_ID, process_id),
                (Tag.SIGNAL, signal_number),
            ],
            timeout_s=timeout_s,
        )

    async def resize(
        self,
        container_id: str,
        *,
        rows: int,
        columns: int,
        process_id: str = INIT_PROCESS_ID,
        timeout_s: float = 10.0,
    ) -> None:
        """Set the window size of a process's tty."""
        await self.channel.request(
            Op.RESIZE,
            [
                (Tag.CONTAINER, container_id),
                (Tag.PROCESS_ID, process_id),
                (Tag.ROWS, rows),
                (Tag.COLUMNS, columns),
            ],
            timeout_s=timeout_s,
        )

    async def stats(self, container_id: str, *, timeout_s: float = 5.0) -> GuestStats:
        """Sample the container's cgroup and the guest's memory."""
        result = await self.channel.request(
            Op.STATS, [(Tag.CONTAINER, container_id)], timeout_s=timeout_s
        )
        return decode_stats(result)

    async def processes(self, container_id: str, *, timeout_s: float = 5.0) -> ProcessList:
        """The processes in the container; at most some hundreds."""
        result = await self.channel.request(
            Op.PROCESSES, [(Tag.CONTAINER, container_id)], timeout_s=timeout_s
        )
        return decode_processes(result)

    async def freeze(self, container_id: str, *, timeout_s: float = 10.0) -> None:
        """Freeze the container's cgroup; returns once it is frozen."""
        await self._on_container(Op.FREEZE, container_id, timeout_s)

    async def thaw(self, container_id: str, *, timeout_s: float = 10.0) -> None:
        """Let a frozen container go on."""
        await self._on_container(Op.THAW, container_id, timeout_s)

    async def update(self, container_id: str, limits: Limits, *, timeout_s: float = 10.0) -> None:
        """Set new limits; those that are None are left as they are."""
        await self._on_container(Op.UPDATE, container_id, timeout_s, *limit_fields(limits))

    async def delete(self, container_id: str, *, timeout_s: float = 60.0) -> None:
        """Kill every process, sync and unmount. Unacknowledged output and events stay readable."""
        await self._on_container(Op.DELETE, container_id, timeout_s)

    async def quiesce(self, *, timeout_s: float = 60.0) -> None:
        """Make a guest without containers worth being saved as a template.

        Its clones' HELLO tells no stage of this boot, and their first `set_clock` steps.
        """
        await self.channel.request(Op.QUIESCE, [], timeout_s=timeout_s)

    async def await_memory(self, memory_bytes: int, *, timeout_s: float = 20.0) -> None:
        """Wait until so much memory is online, the guest's own and what was plugged together."""
        await self.channel.request(
            Op.AWAIT_MEMORY, [(Tag.MEMORY_BYTES, memory_bytes)], timeout_s=timeout_s
        )

    async def reclaim(
        self, container_id: str, memory_bytes: int, *, timeout_s: float = 30.0
    ) -> int:
        """Take up to so many bytes from the container's memory; returns how many it was."""
        result = await self.channel.request(
            Op.RECLAIM,
            [(Tag.CONTAINER, container_id), (Tag.MEMORY_BYTES, memory_bytes)],
            timeout_s=timeout_s,
        )
        return result.number(Tag.MEMORY_BYTES)

    async def power_off(self, *, timeout_s: float = 10.0) -> None:
        """Ask the guest to sync and switch off; the hypervisor tells when it has."""
        await self.channel.request(Op.POWER_OFF, [], timeout_s=timeout_s)

    async def next_event(self) -> AgentEvent:
        """Wait, without a deadline, for the next event of a kind that we know; one consumer.

        Acknowledge with `channel.acknowledge_event(event.number)` once it is recorded.
        """
        while True:
            event = decode_event(await self.channel.next_event())
            if event is not None:
                return event

    async def _on_container(
        self, op: Op, container_id: str, timeout_s: float, *more: tuple[Tag, FieldValue]
    ) -> None:
        await self.channel.request(op, [(Tag.CONTAINER, container_id), *more], timeout_s=timeout_s)
