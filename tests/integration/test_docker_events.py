"""/events: what the docker CLI and raw requests see of what happens."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.docker_lab import DockerClient, needs_docker_cli
from tests.integration.raw_http import RawHttp, read_head

JSON = "application/json"
LABEL = "com.example.role=test"


async def past_events(docker: DockerClient, **filters: list[str]) -> list[dict[str, Any]]:
    """All so far that the filters let through."""
    query = f"since=0&until={time.time():.9f}&filters={quote(json.dumps(filters))}"
    answer = await RawHttp(docker.host).ask("GET", f"/v1.45/events?{query}")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return [json.loads(line) for line in answer.body.splitlines()]


async def actions(docker: DockerClient, **filters: list[str]) -> list[str]:
    return [event["Action"] for event in await past_events(docker, **filters)]


@needs_docker_cli
async def test_a_life_in_docker_s_words(docker: DockerClient) -> None:
    await docker.ok("run", "-d", "--name", "web", "--label", LABEL, "busybox", "trap", "3")
    await docker.ok("exec", "web", "echo", "hi")
    await docker.ok("pause", "web")
    await docker.ok("unpause", "web")
    await docker.ok("rename", "web", "shop")
    await docker.ok("stop", "shop")
    await docker.ok("rm", "shop")
    events = await past_events(docker, type=["container"])
    assert [event["Action"] for event in events] == [
        "create", "start", "exec_create: echo hi", "exec_start: echo hi", "exec_die", "pause",
        "unpause", "rename", "kill", "die", "stop", "destroy",
    ]  # fmt: skip
    create, rename = events[0], events[7]
    assert create.keys() == {
        "status", "id", "from", "Type", "Action", "Actor", "scope", "time", "timeNano",
    }  # fmt: skip
    assert (create["status"], create["from"], create["scope"]) == ("create", "busybox", "local")
    assert create["Actor"]["ID"] == create["id"]
    assert create["timeNano"] // 10**9 == create["time"]
    assert create["Actor"]["Attributes"] == {
        "com.example.role": "test",
        "image": "busybox",
        "name": "web",
    }
    assert rename["Actor"]["Attributes"]["oldName"] == "/web"
    assert events[8]["Actor"]["Attributes"]["signal"] == "15"
    assert events[9]["Actor"]["Attributes"]["exitCode"] == "3"
    assert events[4]["Actor"]["Attributes"]["exitCode"] == "0"


@needs_docker_cli
async def test_a_restart_tells_of_its_parts(docker: DockerClient) -> None:
    await docker.ok("run", "-d", "--name", "web", "busybox", "loop", "0.05")
    await docker.ok("restart", "-t", "0", "web")
    assert (await actions(docker, container=["web"]))[2:] == [
        "kill", "die", "stop", "start", "restart",
    ]  # fmt: skip


@needs_docker_cli
async def test_filters(docker: DockerClient) -> None:
    await docker.ok("run", "-d", "--name", "web", "--label", LABEL, "busybox", "echo", "x")
    await docker.ok("run", "-d", "--name", "db", "busybox", "echo", "x")
    await docker.ok("wait", "web", "db")
    await docker.ok("tag", "busybox", "shelf/box:7")
    assert await actions(docker, container=["web"], event=["create", "die"]) == ["create", "die"]
    assert await actions(docker, label=[LABEL], event=["start"]) == ["start"]
    assert await actions(docker, label=["com.example.role"], event=["start"]) == ["start"]
    assert await actions(docker, label=["com.example.role=other"]) == []
    assert await actions(docker, type=["image"]) == ["tag"]
    assert await actions(docker, type=["network", "volume"]) == []
    assert len(await actions(docker, image=["busybox"], event=["create"])) == 2
    assert await actions(docker, scope=["swarm"]) == []


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("filters=nonsense", "invalid filter"),
        ('filters={"colour":["red"]}', "invalid filter 'colour'"),
        ("since=tomorrow", 'invalid value for "since": failed to parse'),
        ("since=20&until=10", "`since` time (20) cannot be after `until` time (10)"),
    ],
)
async def test_refusals(docker: DockerClient, query: str, text: str) -> None:
    answer = await RawHttp(docker.host).ask("GET", f"/events?{quote(query, safe='=&')}")
    assert answer.status == 400
    assert json.loads(answer.body)["message"].startswith(text)


@needs_docker_cli
async def test_the_head_comes_at_once_and_each_event_when_it_happens(docker: DockerClient) -> None:
    http = RawHttp(docker.host)
    reader, writer = await http.open()
    writer.write(http.request("GET", "/events"))
    head = await read_head(reader)
    assert (head.status, head.headers["transfer-encoding"]) == (200, "chunked")
    await docker.ok("create", "--name", "web", "busybox")
    async with asyncio.timeout(10):
        assert b'"Action":"create"' in await reader.readuntil(b"}\n")
    writer.close()


@needs_docker_cli
async def test_the_cli_follows_until_a_time(docker: DockerClient) -> None:
    process = await docker.start("events", "--until", "2s", "--format", "{{.Action}}")
    await docker.ok("create", "--name", "web", "busybox")
    async with asyncio.timeout(10):
        out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert out.decode().split() in (["create"], [])  # the CLI may have come later


async def test_nothing_happens_twice_or_not_at_all_between_history_and_now(
    docker: DockerClient,
) -> None:
    http = RawHttp(docker.host)

    async def make(number: int) -> None:
        body = json.dumps({"Image": "busybox"}).encode()
        made = await http.ask(
            "POST", f"/containers/create?name=each-{number}", body, {"Content-Type": JSON}
        )
        assert made.status == 201, made

    making = asyncio.create_task(_all_of(make, 40))
    await asyncio.sleep(0)
    until = time.time() + 4
    answer = await http.ask("GET", f"/events?since=0&until={until:.9f}")
    await making
    names = [json.loads(line)["Actor"]["Attributes"]["name"] for line in answer.body.splitlines()]
    assert names == [f"each-{number}" for number in range(len(names))]
    assert len(names) == 40


async def _all_of(make: Callable[[int], Awaitable[None]], count: int) -> None:
    for number in range(count):
        await make(number)
