"""REST as a script uses it: over the engine with the fake machine."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from app.api.app import MOUNT_PATH, create_api
from app.services.bundle import Services
from tests.integration.engine_lab import DEADLINE_S, EngineLab
from tests.integration.faulty_registry import faulty_registry
from tests.integration.registry_lab import sample_image, sample_layer
from tests.integration.serving import served
from tests.unit.oci.archives import sha256

TICKER = {"image": "busybox", "name": "ticker", "command": ["loop", "0.01"]}


@pytest.fixture
async def client(services: Services) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with an admin's token."""
    api = create_api("test")

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"services": services}
        await api(scope, receive, send)

    link = await services.accounts.issue_setup_link()
    await services.accounts.create_first_admin(link, "admin", "correct horse battery")
    token = (await services.accounts.create_token("script", "admin")).secret
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        served(with_state) as url,
        httpx2.AsyncClient(base_url=url, headers=headers, timeout=DEADLINE_S) as client,
    ):
        yield client


async def test_main_job_by_rest(client: httpx2.AsyncClient) -> None:
    created = await client.post("/containers", json=TICKER)
    assert created.status_code == 201
    assert created.headers["location"] == f"{MOUNT_PATH}/containers/{created.json()['id']}"
    started = await client.post("/containers/ticker/start")
    assert (started.status_code, started.json()["state"]) == (200, "running")
    async with client.stream("GET", "/containers/ticker/logs", params={"follow": True}) as log:
        lines = log.aiter_lines()
        first = [json.loads(await anext(lines))["text"] for _ in range(3)]
    assert first == ["1", "2", "3"]
    stopped = await client.post("/containers/ticker/stop", params={"timeout_s": 0})
    assert (stopped.json()["state"], stopped.json()["exit_code"]) == ("exited", 137)
    assert (await client.delete("/containers/ticker")).status_code == 204
    gone = await client.get("/containers/ticker")
    assert gone.status_code == 404
    assert gone.headers["content-type"] == "application/problem+json"
    assert gone.json()["detail"] == "No such container: ticker"


async def test_token_is_needed(client: httpx2.AsyncClient) -> None:
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer slw_wrong"}):
        refused = await client.get("/containers", headers=headers)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert refused.json()["code"] == "unauthenticated"


async def test_faults_are_named_by_field(client: httpx2.AsyncClient) -> None:
    body = TICKER | {"memory_bytes": 1, "env": ["=x"], "restart_policy": "no"}
    refused = await client.post("/containers", json=body)
    assert refused.status_code == 422
    assert set(refused.json()["errors"]) == {"memory_bytes", "env"}
    shape = await client.post("/containers", json={"image": 3, "colour": "red"})
    assert shape.status_code == 422
    assert set(shape.json()["errors"]) == {"image", "colour"}


async def test_start_and_stop_are_idempotent(client: httpx2.AsyncClient) -> None:
    await client.post("/containers", json=TICKER, params={"start": True})
    for verb in ("start", "start", "stop", "stop"):
        answer = await client.post(f"/containers/ticker/{verb}?timeout_s=0")
        assert answer.status_code == 200, answer.text


async def test_logs_resume_by_number(client: httpx2.AsyncClient) -> None:
    body = TICKER | {"command": ["flood", "500"]}
    await client.post("/containers", json=body, params={"start": True})
    await client.post("/containers/ticker/wait")
    whole = (await client.get("/containers/ticker/logs", params={"format": "text"})).text
    assert whole.splitlines() == [str(number) for number in range(1, 501)]
    rest = await client.get("/containers/ticker/logs", params={"after_seq": 497})
    assert [json.loads(line)["seq"] for line in rest.text.splitlines()] == [498, 499, 500]
    tail = await client.get("/containers/ticker/logs", params={"tail": 2, "format": "text"})
    assert tail.text == "499\n500\n"


async def test_exec_streams_output_and_exit_code(client: httpx2.AsyncClient) -> None:
    await client.post("/containers", json=TICKER, params={"start": True})
    command = {"command": ["sh", "-c", "echo out; echo err >&2; exit 4"]}
    answer = await client.post("/containers/ticker/exec", json=command)
    assert [json.loads(line) for line in answer.text.splitlines()] == [
        {"stream": "stdout", "text": "out\n"},
        {"stream": "stderr", "text": "err\n"},
        {"exit_code": 4},
    ]
    missing = await client.post("/containers/ticker/exec", json={"command": ["no-such"]})
    assert (missing.status_code, missing.json()["code"]) == (400, "guest_failed")


async def test_hanging_up_kills_the_command(client: httpx2.AsyncClient, lab: EngineLab) -> None:
    created = await client.post("/containers", json=TICKER, params={"start": True})
    guest = lab.guests[created.json()["vm_id"]]
    processes = guest.machine.containers[created.json()["id"]].processes
    command = {"command": ["loop", "0.01"]}
    async with client.stream("POST", "/containers/ticker/exec", json=command) as output:
        assert '"text":"1' in await anext(output.aiter_lines())
        assert len(processes) == 2
    async with asyncio.timeout(DEADLINE_S):
        while len(processes) > 1:  # noqa: ASYNC110 - the fake guest has no event for it
            await asyncio.sleep(0.01)
    assert list(processes) == ["init"]


async def test_stdin_reaches_the_process(client: httpx2.AsyncClient) -> None:
    body = TICKER | {"command": ["cat"], "stdin_open": True}
    await client.post("/containers", json=body, params={"start": True})
    written = await client.post("/containers/ticker/stdin", content=b"a\nb\n", params={"close": 1})
    assert written.status_code == 204, written.text
    assert (await client.post("/containers/ticker/wait")).json() == {"exit_code": 0}
    log = await client.get("/containers/ticker/logs", params={"format": "text"})
    assert log.text == "a\nb\n"


async def test_image_import_by_rest(client: httpx2.AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "root/bin").mkdir(parents=True)
    (tmp_path / "root/bin/tool").write_bytes(b"#!")
    process = await asyncio.create_subprocess_exec(
        "tar", "-C", tmp_path / "root", "-cf", tmp_path / "root.tar", "."
    )
    assert await process.wait() == 0
    body = await asyncio.to_thread((tmp_path / "root.tar").read_bytes)
    imported = await client.post("/images", content=body, params={"reference": "shop/tool:1"})
    assert imported.status_code == 201, imported.text
    assert imported.json()[0]["references"] == ["shop/tool:1"]
    tagged = await client.post("/images/shop/tool:1/tag", params={"to": "tool:latest"})
    assert set(tagged.json()["references"]) == {"shop/tool:1", "tool:latest"}
    shown = await client.get("/images/shop/tool:1")
    assert shown.json()["id"] == imported.json()[0]["id"]
    bad = await client.post("/images", content=b"this is no archive" * 100)
    assert (bad.status_code, bad.json()["code"]) == (400, "corrupt_data")


async def test_pull_by_rest(client: httpx2.AsyncClient) -> None:
    image = sample_image()
    async with faulty_registry() as registry:
        registry.add("app", "1", image)
        name = f"{registry.host}/app:1"
        answer = await client.post("/images/pull", params={"reference": name})
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        first, *steps, last = [json.loads(line) for line in answer.text.splitlines()]
        assert first == {"stage": "Pulling"}
        assert {step["stage"] for step in steps} >= {"Downloading", "Pull complete"}
        assert last == {"digest": image.digest, "is_news": True}
        shown = await client.get(f"/images/{name}")
        assert (shown.json()["id"], shown.json()["references"]) == (image.id, [name])
        missing = await client.post("/images/pull", params={"reference": f"{name}0"})
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
        registry.blobs = {key: data[:-1] + b"x" for key, data in registry.blobs.items()}
        registry.add("app", "2", sample_image(sample_layer("other")))
        lie = sha256(sample_layer("other"))
        registry.blobs[f"app/blobs/{lie}"] = sample_layer("liar0")
        broken = await client.post("/images/pull", params={"reference": f"{registry.host}/app:2"})
        problem = json.loads(broken.text.splitlines()[-1])["problem"]
        assert problem["code"] == "corrupt_data"
    gone = await client.post("/images/pull", params={"reference": name})
    assert (gone.status_code, gone.json()["code"]) == (503, "registry_failed")


async def test_image_in_use_conflicts(client: httpx2.AsyncClient) -> None:
    await client.post("/containers", json=TICKER)
    refused = await client.delete("/images/busybox")
    assert refused.status_code == 409
    await client.delete("/containers/ticker")
    removed = await client.delete("/images/busybox")
    assert removed.json()["freed_bytes"] > 0


async def test_events_tell_who(client: httpx2.AsyncClient) -> None:
    await client.post("/containers", json=TICKER)
    events = (await client.get("/events", params={"limit": 1})).json()
    assert (events[0]["action"], events[0]["initiator"]) == ("create", "token:script")


async def test_hosts_and_vms(client: httpx2.AsyncClient) -> None:
    await client.post("/containers", json=TICKER, params={"start": True})
    (host,) = (await client.get("/hosts")).json()
    assert (host["id"], host["hypervisor"], host["containers_running"]) == ("local", "fake", 1)
    (vm,) = (await client.get("/vms")).json()
    assert vm["state"] == "ready"
    assert (await client.get(f"/vms/{vm['id']}")).json()["container_id"] == vm["container_id"]
    assert (await client.get("/vms/000000000000")).status_code == 404


async def test_document_is_complete(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    for path, operations in document["paths"].items():
        for verb, operation in operations.items():
            assert operation["summary"], f"{verb} {path}"
            assert operation["description"], f"{verb} {path}"
            assert "401" in operation["responses"], f"{verb} {path}"
