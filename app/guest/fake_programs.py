"""Programs that a `FakeGuest` can run, by argv[0]; enough of each to test what is around it."""

import asyncio
import re
from collections.abc import Mapping
from types import MappingProxyType

from app.guest.fake_process import SIGKILL, SIGSEGV, SIGTERM, FakeProcess, Program
from app.guest.records import Source

_LINES_PER_WRITE = 256


async def _echo(process: FakeProcess) -> int:
    args = process.args[1:]
    ending = b"\n"
    if args[:1] == ["-n"]:
        args, ending = args[1:], b""
    await process.write(" ".join(args).encode("utf-8", "surrogateescape") + ending)
    return 0


async def _cat(process: FakeProcess) -> int:
    while data := await process.read():
        await process.write(data)
    return 0


async def _wc(process: FakeProcess) -> int:
    """`wc -l`: how many lines the input has."""
    lines = 0
    while data := await process.read():
        lines += data.count(b"\n")
    await process.write(f"{lines}\n".encode())
    return 0


async def _head(process: FakeProcess) -> int:
    """`head -c COUNT`: the first bytes of the input, whose rest is left."""
    missing = int(process.args[2])
    while missing > 0 and (data := await process.read()):
        await process.write(data[:missing])
        missing -= len(data)
    return 0


async def _sleep(process: FakeProcess) -> int:
    await process.sleep(float(process.args[1]))
    return 0


async def _true(_process: FakeProcess) -> int:
    return 0


async def _false(_process: FakeProcess) -> int:
    return 1


async def _exit(process: FakeProcess) -> int:
    return int(process.args[1])


async def _env(process: FakeProcess) -> int:
    for name, value in process.env.items():
        await process.write(f"{name}={value}\n".encode("utf-8", "surrogateescape"))
    return 0


async def _loop(process: FakeProcess) -> int:
    """`loop [INTERVAL_S [COUNT]]`: numbered lines from 1, for ever without a count."""
    interval_s = float(process.args[1]) if len(process.args) > 1 else 1.0
    count = int(process.args[2]) if len(process.args) > 2 else None
    number = 0
    while count is None or number < count:
        number += 1
        await process.write(f"{number}\n".encode())
        await process.sleep(interval_s)
    return 0


async def _flood(process: FakeProcess) -> int:
    """`flood COUNT`, `seq COUNT`: numbered lines from 1 as fast as they are taken."""
    count = int(process.args[1])
    for first in range(1, count + 1, _LINES_PER_WRITE):
        last = min(first + _LINES_PER_WRITE, count + 1)
        await process.write("".join(f"{number}\n" for number in range(first, last)).encode())
        await asyncio.sleep(0)
    return 0


async def _trap(process: FakeProcess) -> int:
    """`trap [EXIT_CODE]`: waits for SIGTERM, says so and exits."""
    process.handled.add(SIGTERM)
    await process.write(b"ready\n")
    await process.signals.get()
    await process.write(b"terminated\n")
    return int(process.args[1]) if len(process.args) > 1 else 0


async def _crash(process: FakeProcess) -> int:
    process.die(SIGSEGV)
    await asyncio.Event().wait()
    return 0


async def _oom(process: FakeProcess) -> int:
    """Ends as if the container had run out of memory."""
    process.container.oom_kills += 1
    process.die(SIGKILL, of_memory=True)
    await asyncio.Event().wait()
    return 0


_WHILE = re.compile(
    r"while (?:true|:|sleep (?P<sleep>[\d.]+)); ?do (?P<body>.+?);? ?done", re.DOTALL
)
_FOR = re.compile(
    r"for (?P<name>\w+) in \$\(seq (?:1 )?(?P<count>\d+)\); ?do (?P<body>.+?);? ?done", re.DOTALL
)


class _Exit(Exception):
    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


async def _sh(process: FakeProcess) -> int:
    """`sh -c SCRIPT`: commands joined by `;` or `&&`, `while true` and `for i in $(seq N)`.

    `echo … >&2`, `exit N`, `$$`, `$NAME` and every other program of this table work; pipes, tests
    and further expansion do not.
    """
    if len(process.args) < 3 or process.args[1] != "-c":
        return await _cat(process)
    try:
        return await _script(process, process.args[2].strip(), dict(process.env))
    except _Exit as end:
        return end.code


async def _script(process: FakeProcess, script: str, variables: dict[str, str]) -> int:
    code = 0
    while script:
        if match := _FOR.match(script):
            for number in range(1, int(match["count"]) + 1):
                code = await _script(
                    process, match["body"], variables | {match["name"]: str(number)}
                )
        elif match := _WHILE.match(script):
            while True:
                await process.sleep(float(match["sleep"] or 0))
                code = await _script(process, match["body"], variables)
                await asyncio.sleep(0)  # a loop without a pause must let others run
        if match:
            script = script[match.end() :].lstrip("; \n")
            continue
        command, separator, script = _split(script)
        code = await _command(process, command, variables)
        if separator == "&&" and code != 0:
            return code
    return code


def _split(script: str) -> tuple[str, str, str]:
    match = re.search(r"&&|;|\n", script)
    if match is None:
        return script, "", ""
    return script[: match.start()], match.group(), script[match.end() :].lstrip("; \n")


async def _command(process: FakeProcess, command: str, variables: dict[str, str]) -> int:
    command = command.strip().replace("$$", str(process.pid))
    command = re.sub(r"\$\{?(\w+)\}?", lambda match: variables.get(match[1], ""), command)
    source = Source.STDERR if re.search(r"\d?>&2", command) else Source.STDOUT
    command = re.sub(r"\s*1?>&2", "", command)
    words = [word.strip("\"'") for word in re.findall(r"\"[^\"]*\"|'[^']*'|\S+", command)]
    if not words:
        return 0
    if words[0] == "exit":
        raise _Exit(int(words[1]) if len(words) > 1 else 0)
    if words[0] == "exec":
        words = words[1:]
    if words[0] == "echo":
        await process.write(" ".join(words[1:]).encode("utf-8", "surrogateescape") + b"\n", source)
        return 0
    program = PROGRAMS.get(words[0].rpartition("/")[2])
    if program is None:
        await process.write(f"sh: {words[0]}: not found\n".encode(), Source.STDERR)
        return 127
    shell_args = process.args
    process.args = words
    try:
        return await program(process)
    finally:
        process.args = shell_args


async def _warm_up(process: FakeProcess) -> int:
    """What the pool's throw-away container runs: a line on each stream."""
    await process.write(b"warm\n")
    await process.write(b"warm\n", Source.STDERR)
    return 0


PROGRAMS: Mapping[str, Program] = MappingProxyType(
    {
        "cat": _cat,
        "crash": _crash,
        "echo": _echo,
        "env": _env,
        "exit": _exit,
        "false": _false,
        "flood": _flood,
        "head": _head,
        "loop": _loop,
        "oom": _oom,
        "seq": _flood,
        "sh": _sh,
        "sleep": _sleep,
        "trap": _trap,
        "true": _true,
        "warm-up": _warm_up,
        "wc": _wc,
    }
)
