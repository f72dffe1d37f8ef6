import json
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from bench.engine.__main__ import OPERATIONS, Subject, docker_pids, report


class Frugal:
    """A peer that answers at once."""

    def __init__(self, name: str, output: bytes = b"hello\n") -> None:
        self.name = name
        self.calls: list[str] = []
        self._output = output

    async def create(self, command: Sequence[str], memory_bytes: int = 0) -> str:
        self.calls.append("create")
        return "c1"

    async def start(self, container_id: str) -> dict[str, float]:
        self.calls.append("start")
        return {}

    async def log(self, container_id: str) -> AsyncIterator[bytes]:
        self.calls.append("logs")
        yield self._output

    async def wait(self, container_id: str) -> None:
        self.calls.append("wait")

    async def stop(self, container_id: str) -> None:
        raise AssertionError(container_id)

    async def remove(self, container_id: str) -> None:
        self.calls.append("remove")

    async def start_path(self, container_id: str) -> str:
        return "pool"

    async def until_ready(self) -> None:
        self.calls.append("until_ready")


async def test_each_request_of_a_life_is_measured() -> None:
    peer = Frugal("slipway")
    subject = Subject(peer, [os.getpid()])
    await subject.live()
    assert peer.calls == [*OPERATIONS, "until_ready"]
    assert set(subject.spent_ms) == {*OPERATIONS, "between lives"}
    assert subject.lives_ms() == [sum(subject.spent_ms[name][0] for name in OPERATIONS)]
    assert subject.container_ids == ["c1"]


async def test_first_lives_do_not_count() -> None:
    subject = Subject(Frugal("slipway"), [os.getpid()])
    await subject.warm_up()
    assert (subject.spent_ms, subject.container_ids) == ({}, [])


async def test_a_life_without_its_line_ends_the_benchmark() -> None:
    with pytest.raises(SystemExit, match="no line"):
        await Subject(Frugal("slipway", b""), [os.getpid()]).live()


async def test_ours_is_told_beside_docker(capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = (Subject(Frugal(name), [os.getpid()]) for name in ("slipway", "docker"))
    for subject, cpu_ms in ((ours, 6.0), (theirs, 4.0)):
        subject.spent_ms = {name: [cpu_ms] for name in (*OPERATIONS, "between lives")}
    report(ours, theirs)
    report(theirs, None)
    lines = {line["name"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert lines["slipway wait"]["times_docker_p50"] == 1.5
    assert lines["slipway wait"]["target_p50_cpu_ms"] == 15
    assert lines["slipway life"]["p50_cpu_ms"] == 30
    assert "times_docker_p50" not in lines["slipway between lives"]
    assert lines["docker life"]["p50_cpu_ms"] == 20
    assert "target_p50_cpu_ms" not in lines["docker wait"]


def test_dockers_processes_are_the_daemon_and_its_containerd(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(str(os.getpid()))
    assert docker_pids({"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}) == [os.getpid()]
