"""The operations of `FakeGuest`: what REQUEST does to its containers."""

import asyncio
import errno
from collections.abc import Callable, Mapping

from app.guest.agent_types import NO_LIMIT
from app.guest.fake_process import (
    INIT_PROCESS_ID,
    SIGKILL,
    FakeContainer,
    FakeProcess,
    GuestSide,
    Program,
)
from app.guest.fake_streams import FakeInput, FakeOutput
from app.guest.fake_tree import FakeTree
from app.guest.fields import FieldList, Fields, FieldValue, encode_fields
from app.guest.protocol import Op, ProcessState, Tag

_LIMIT_TAGS = (
    Tag.MEMORY_MAX_BYTES,
    Tag.MEMORY_SWAP_MAX_BYTES,
    Tag.CPU_QUOTA_US,
    Tag.CPU_PERIOD_US,
    Tag.CPU_WEIGHT,
    Tag.PIDS_MAX,
)
TREE_OPERATIONS = (Op.STAT_PATH, Op.READ_TREE, Op.WRITE_TREE, Op.LIST_CHANGES)
_CREATE_STAGES = "mount", "namespaces"  # stages of CREATE (docs/channel.md)


class OperationError(Exception):
    """Becomes a RESPONSE with this errno and message."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number
        self.message = message


class FakeMachine:
    """Containers, processes and streams of the fake guest, and the operations on them.

    Args:
        side: What processes need of the guest.
        programs: What can be executed, by the last part of argv[0].
        own: Gets every task to cancel and await it at the end.
        on_input: Called with each new input stream.
    """

    def __init__(
        self,
        side: GuestSide,
        programs: Mapping[str, Program],
        *,
        init_output_bytes: int,
        exec_output_bytes: int,
        own: Callable[["asyncio.Task[int]"], None],
        on_input: Callable[[FakeInput], None],
        set_clock: Callable[[int], int],
    ) -> None:
        self.containers: dict[str, FakeContainer] = {}
        self.outputs: dict[int, FakeOutput] = {}
        self.inputs: dict[int, FakeInput] = {}
        self.entropy_bytes = 0
        self.is_powering_off = False
        self.is_quiesced = False
        self.tree = FakeTree()
        self.memory_bytes = 0  # the most that AWAIT_MEMORY has waited for
        self._side = side
        self._programs = programs
        self._init_output_bytes = init_output_bytes
        self._exec_output_bytes = exec_output_bytes
        self._own = own
        self._on_input = on_input
        self._set_clock = set_clock
        self._next_pid = 100
        self._booted_at_ns = side.clock_ns()
        self._operations: dict[Op, Callable[[Fields], FieldList]] = {
            Op.SET_CLOCK: self._clock,
            Op.SEED_ENTROPY: self._seed,
            Op.CREATE: self._create,
            Op.START: self._start,
            Op.EXEC: self._exec,
            Op.SIGNAL: self._signal,
            Op.RESIZE: self._resize,
            Op.STATS: self._stats,
            Op.FREEZE: self._freeze,
            Op.THAW: self._thaw,
            Op.UPDATE: self._update,
            Op.DELETE: self._delete,
            Op.POWER_OFF: self._power_off,
            Op.QUIESCE: self._quiesce,
            Op.AWAIT_MEMORY: self._await_memory,
            Op.RECLAIM: self._reclaim,
            Op.PROCESSES: self._list_processes,
            **dict.fromkeys(TREE_OPERATIONS, self._tree),
        }

    def run(self, fields: Fields) -> FieldList:
        """Run one operation and return the fields of its result.

        Raises:
            OperationError: It is refused.
            CorruptData: A field is missing or broken.
        """
        number = fields.number(Tag.OP)
        if number not in tuple(Op):
            raise OperationError(errno.ENOSYS, f"unknown operation {number}")
        return self._operations[Op(number)](fields)

    def _container(self, fields: Fields) -> FakeContainer:
        container_id = fields.text(Tag.CONTAINER)
        container = self.containers.get(container_id)
        if container is None:
            raise OperationError(errno.ENOENT, f"no container {container_id}")
        return container

    def _process(self, fields: Fields) -> FakeProcess:
        process_id = fields.text(Tag.PROCESS_ID, INIT_PROCESS_ID)
        process = self._container(fields).processes.get(process_id)
        if process is None:
            raise OperationError(errno.ESRCH, f"no process {process_id}")
        return process

    def _clock(self, fields: Fields) -> FieldList:
        return [(Tag.TIME_NS, self._set_clock(fields.number(Tag.TIME_NS)))]

    def _seed(self, fields: Fields) -> FieldList:
        data = fields.data(Tag.DATA)
        if not data:
            raise OperationError(errno.EINVAL, "no entropy given")
        self.entropy_bytes += len(data)
        return []

    def _make_process(
        self, container: FakeContainer, process_id: str, spec: Fields, output_bytes: int
    ) -> FakeProcess:
        args = spec.texts(Tag.ARG)
        output_id = spec.number(Tag.OUTPUT_STREAM)
        input_id = spec.number(Tag.STDIN_STREAM, 0)
        if not args:
            raise OperationError(errno.EINVAL, "no arguments")
        if output_id in self.outputs or output_id == 0:
            raise OperationError(errno.EEXIST, f"stream {output_id} exists")
        if input_id in self.inputs:
            raise OperationError(errno.EEXIST, f"stream {input_id} exists")
        env = dict(entry.partition("=")[::2] for entry in spec.texts(Tag.ENV))
        stdin = FakeInput(input_id) if input_id else None
        process = FakeProcess(
            self._side,
            container,
            process_id,
            self._next_pid,
            args=args,
            env=env,
            stdin=stdin,
            output=FakeOutput(output_id, output_bytes),
        )
        self._next_pid += 1
        process.has_tty = spec.flag(Tag.TTY)
        process.rows, process.columns = spec.number(Tag.ROWS, 0), spec.number(Tag.COLUMNS, 0)
        self.outputs[output_id] = process.output
        if stdin is not None:
            self.inputs[input_id] = stdin
            self._on_input(stdin)
        container.processes[process_id] = process
        return process

    def _program(self, process: FakeProcess) -> Program:
        name = process.args[0]
        program = self._programs.get(name.rpartition("/")[2])
        if program is None:
            where = "no such file or directory"
            if "/" not in name:
                where = "executable file not found in $PATH"
            raise OperationError(errno.ENOENT, f'exec: "{name}": {where}')
        return program

    def _create(self, fields: Fields) -> FieldList:
        container_id = fields.text(Tag.CONTAINER)
        if container_id in self.containers:
            raise OperationError(errno.EEXIST, f"container {container_id} exists")
        container = FakeContainer(container_id, has_init=fields.flag(Tag.INIT))
        container.thawed.set()
        self._limit(container, fields)
        output_bytes = self._init_output_bytes + fields.number(Tag.SPILL_BYTES, 0)
        spec = fields.group(Tag.PROCESS_SPEC)
        process = self._make_process(container, INIT_PROCESS_ID, spec, output_bytes)
        self.containers[container_id] = container
        now_ns = self._side.clock_ns()
        stages: list[tuple[Tag, FieldValue]] = [
            (Tag.STAGE, [(Tag.NAME, name), (Tag.AT_NS, now_ns)]) for name in _CREATE_STAGES
        ]
        return [(Tag.PID, process.pid), *stages]

    def _start(self, fields: Fields) -> FieldList:
        process = self._container(fields).init
        if process.state is not ProcessState.CREATED:
            raise OperationError(errno.EALREADY, "the container was started already")
        process.start(self._program(process), self._own)
        return []

    def _exec(self, fields: Fields) -> FieldList:
        container = self._container(fields)
        process_id = fields.text(Tag.PROCESS_ID)
        if container.init.state is not ProcessState.RUNNING:
            raise OperationError(errno.ESRCH, "the container does not run")
        if process_id in container.processes:
            raise OperationError(errno.EEXIST, f"process {process_id} exists")
        spec = fields.group(Tag.PROCESS_SPEC)
        process = self._make_process(container, process_id, spec, self._exec_output_bytes)
        try:
            program = self._program(process)
        except OperationError:
            self.forget(container.id, process_id)
            del self.outputs[process.output.stream_id]
            self.input_ended(process)
            raise
        process.start(program, self._own)
        return [(Tag.PID, process.pid)]

    def _signal(self, fields: Fields) -> FieldList:
        process = self._process(fields)
        if process.state is ProcessState.EXITED:
            raise OperationError(errno.ESRCH, "the process has ended")
        number = fields.number(Tag.SIGNAL)
        if not 0 <= number <= 64:
            raise OperationError(errno.EINVAL, f"no signal {number}")
        if number:
            process.deliver(number)
        return []

    def _resize(self, fields: Fields) -> FieldList:
        process = self._process(fields)
        if not process.has_tty:
            raise OperationError(errno.ENOTTY, "the process has no terminal")
        process.rows, process.columns = fields.number(Tag.ROWS), fields.number(Tag.COLUMNS)
        return []

    def _stats(self, fields: Fields) -> FieldList:
        container = self._container(fields)
        running = [p for p in container.processes.values() if p.state is not ProcessState.EXITED]
        written = sum(p.output.end for p in container.processes.values())
        return [
            (Tag.STAT_CPU_US, written),
            (Tag.STAT_CPU_USER_US, written),
            (Tag.STAT_CPU_SYSTEM_US, 0),
            (Tag.STAT_MEMORY_BYTES, container.memory_bytes),
            (Tag.STAT_MEMORY_ANON_BYTES, container.memory_bytes),
            (Tag.STAT_MEMORY_LIMIT_BYTES, container.limits.get(Tag.MEMORY_MAX_BYTES.name, 0)),
            (Tag.STAT_PIDS, len(running)),
            (Tag.STAT_OOM_KILLS, container.oom_kills),
        ]

    def _list_processes(self, fields: Fields) -> FieldList:
        now_ns = self._side.clock_ns()
        items: list[tuple[Tag, FieldValue]] = [
            (Tag.TIME_NS, now_ns),
            (Tag.UPTIME_NS, now_ns - self._booted_at_ns),
        ]
        for process in self._container(fields).processes.values():
            if process.state is ProcessState.RUNNING:
                ticks = (process.time_ns - self._booted_at_ns) // 10_000_000
                parent = 0 if process.id == INIT_PROCESS_ID else 1
                stat = f"{process.pid} ({process.args[0]}) S {parent}" + " 0" * 13
                stat += f" 20 0 1 0 {ticks} 4096 1" + " 0" * 28 + "\n"
                group: FieldList = [
                    (Tag.PID, process.pid),
                    (Tag.USER, "0"),
                    (Tag.DATA, stat.encode()),
                    *((Tag.ARG, arg) for arg in process.args),
                ]
                items.append((Tag.PROCESS, group))
        return items

    def _tree(self, fields: Fields) -> FieldList:
        container = self._container(fields)
        if container.init.state is ProcessState.EXITED:
            raise OperationError(errno.ESRCH, "the container is not there any more")
        streams = (Tag.STDIN_STREAM, Tag.OUTPUT_STREAM)
        spec: list[tuple[Tag, FieldValue]] = [(Tag.ARG, "tree")]
        spec += [(tag, fields.number(tag, 0)) for tag in streams]
        process = self._make_process(
            container,
            fields.text(Tag.PROCESS_ID),
            Fields(encode_fields(spec)),
            self._exec_output_bytes,
        )
        process.is_helper = True
        process.start(self.tree.program(fields), self._own)
        return []

    def _freeze(self, fields: Fields) -> FieldList:
        self._container(fields).thawed.clear()
        return []

    def _thaw(self, fields: Fields) -> FieldList:
        self._container(fields).thawed.set()
        return []

    def _update(self, fields: Fields) -> FieldList:
        self._limit(self._container(fields), fields)
        return []

    @staticmethod
    def _limit(container: FakeContainer, fields: Fields) -> None:
        for tag in _LIMIT_TAGS:
            if tag in fields:
                container.limits[tag.name] = fields.number(tag)
                if container.limits[tag.name] == NO_LIMIT:
                    del container.limits[tag.name]

    def _delete(self, fields: Fields) -> FieldList:
        container = self._container(fields)
        for process in list(container.processes.values()):
            process.die(SIGKILL)
        del self.containers[container.id]
        return []

    def _quiesce(self, _fields: Fields) -> FieldList:
        if self.containers:
            raise OperationError(errno.EBUSY, "a guest with containers can't become a template")
        self.is_quiesced = True
        return []

    def _await_memory(self, fields: Fields) -> FieldList:
        """The fake has whatever memory is wanted, at once; `delays_s` makes it slow."""
        self.memory_bytes = max(self.memory_bytes, fields.number(Tag.MEMORY_BYTES))
        return []

    def _reclaim(self, fields: Fields) -> FieldList:
        container = self._container(fields)
        taken_bytes = min(container.memory_bytes, fields.number(Tag.MEMORY_BYTES))
        container.memory_bytes -= taken_bytes
        return [(Tag.MEMORY_BYTES, taken_bytes)]

    def _power_off(self, _fields: Fields) -> FieldList:
        self.is_powering_off = True
        return []

    def forget(self, container_id: str, process_id: str) -> None:
        """Forget a process that was never started, or whose exit is recorded; init stays."""
        container = self.containers.get(container_id)
        if container is not None and process_id != INIT_PROCESS_ID:
            container.processes.pop(process_id, None)

    def input_ended(self, process: FakeProcess) -> bytes | None:
        """Forget the stdin of a process and return the ACK that says so."""
        stdin = process.stdin
        if stdin is None or self.inputs.pop(stdin.stream_id, None) is None:
            return None
        return stdin.ack(eof=True)

    def describe(self) -> list[tuple[Tag, FieldValue]]:
        """Return STREAM and PROCESS groups of HELLO_ACK."""
        items: list[tuple[Tag, FieldValue]] = []
        items += [(Tag.STREAM, stream.describe()) for stream in self.outputs.values()]
        items += [(Tag.STREAM, stream.describe()) for stream in self.inputs.values()]
        for container in self.containers.values():
            items += [(Tag.PROCESS, _describe(process)) for process in container.processes.values()]
        return items


def _describe(process: FakeProcess) -> FieldList:
    return [
        (Tag.CONTAINER, process.container.id),
        (Tag.PROCESS_ID, process.id),
        (Tag.PROCESS_STATE, process.state),
        (Tag.PID, process.pid),
        (Tag.EXIT_CODE, process.exit_code),
        (Tag.SIGNAL, process.signal),
        (Tag.OOM_KILLED, process.oom_killed),
        (Tag.TIME_NS, process.time_ns),
    ]
