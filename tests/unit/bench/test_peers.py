from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from bench.peers import Life, has_template, is_ready, live


class Scripted:
    """A peer that answers at once, with the output it was given."""

    name = "scripted"

    def __init__(self, output: Sequence[bytes]) -> None:
        self.output = output
        self.calls: list[str] = []

    async def create(self, command: Sequence[str], memory_bytes: int = 0) -> str:
        self.calls.append(f"create {' '.join(command)} {memory_bytes}")
        return "c1"

    async def start(self, container_id: str) -> dict[str, float]:
        self.calls.append(f"start {container_id}")
        return {"clone": 5.0}

    async def log(self, container_id: str) -> AsyncIterator[bytes]:
        self.calls.append(f"log {container_id}")
        for piece in self.output:
            yield piece

    async def wait(self, container_id: str) -> None:
        self.calls.append(f"wait {container_id}")

    async def stop(self, container_id: str) -> None:
        raise AssertionError(container_id)

    async def remove(self, container_id: str) -> None:
        self.calls.append(f"remove {container_id}")

    async def start_path(self, container_id: str) -> str:
        self.calls.append(f"start_path {container_id}")
        return "clone"

    async def until_ready(self) -> None:
        raise AssertionError


async def test_a_life_has_every_step_in_order() -> None:
    peer = Scripted([b"\x01\0\0\0\0\0\0\x06hel", b"lo\n", b"more"])
    life = await live(peer, 5)
    assert peer.calls == [
        "create echo hello 5", "start c1", "log c1", "wait c1", "remove c1", "start_path c1",
    ]  # fmt: skip
    assert list(life.steps_ms) == ["create", "start", "output", "exit", "remove"]
    assert (life.start_path, life.boot_stages_ms) == ("clone", {"clone": 5.0})


async def test_a_life_without_its_line_ends_the_benchmark() -> None:
    with pytest.raises(SystemExit, match="no line"):
        await live(Scripted([b"hell"]))


def test_sums_of_a_life() -> None:
    life = Life({"create": 1, "start": 2, "output": 4, "exit": 8, "remove": 16})
    assert (life.total_ms, life.first_line_ms) == (31, 7)


def host(*states: str, pool: dict[str, int] | None = None) -> dict[str, Any]:
    document: dict[str, Any] = {"templates": [{"state": state} for state in states]}
    return document | ({"pool": pool} if pool is not None else {})


@pytest.mark.parametrize(
    ("document", "ready"),
    [
        (host(), True),
        (host("ready"), True),
        (host("failed"), True),
        (host("ready", "building"), False),
        (host("ready", pool={"waiting": 3, "size": 4}), False),
        (host("ready", pool={"waiting": 4, "size": 4}), True),
        (host("ready", pool={"waiting": 0, "size": 0}), True),
        (host("building", pool={"waiting": 4, "size": 4}), False),
    ],
)
def test_ready_is_when_nothing_is_in_the_making(document: dict[str, Any], ready: bool) -> None:
    assert is_ready(document) is ready


def test_only_a_template_that_is_made_gives_clones() -> None:
    assert has_template(host("building", "ready"))
    assert not has_template(host("building", "failed"))
    assert not has_template(host())
