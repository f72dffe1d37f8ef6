"""Answers have the keys and types of Docker's own (26.1.5, API 1.45), written down as shapes.

A shape is an object of shapes, a list with the shape of its items, or the word for a plain value;
`{}` and `[]` say nothing of what is in them. Docker's null may be any object or list, and ours too.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.docker_api.app import create_docker_app
from app.domain.container import ContainerState
from app.services.bundle import Services
from tests.integration.engine_lab import until_state

SHAPES = json.loads((Path(__file__).parents[1] / "vectors" / "docker_shapes.json").read_text())
CREATE = {
    "Image": "busybox",
    "Cmd": ["loop", "0.05"],
    "Env": ["A=b"],
    "Labels": {"l": "1"},
    "ExposedPorts": {"80/tcp": {}},
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 20_000_000},
    "HostConfig": {
        "NetworkMode": "none",
        "Mounts": [{"Type": "tmpfs", "Target": "/data"}],
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2},
    },
}
# What Docker shows of its own storage and networks, which are not ours to have.
ABSENT = {
    "Name",  # of a mount: only volumes have one
    "Driver",
    "percpu_usage",  # only with cgroup v1
    "max_usage",
    "networks",
    "SizeRw",
    "SizeRootFs",
}


def differences(ours: Any, shape: Any, place: str = "") -> list[str]:
    """Where an answer has not the shape; a key of ours that Docker has not is no fault."""
    if ours is None or shape == "none":
        return []
    if isinstance(shape, dict):
        if not isinstance(ours, dict):
            return [f"{place}: {type(ours).__name__} instead of an object"]
        missing = [
            f"{place}.{key}: missing" for key in shape.keys() - ours.keys() if key not in ABSENT
        ]
        return missing + [
            fault
            for key in shape.keys() & ours.keys()
            for fault in differences(ours[key], shape[key], f"{place}.{key}")
        ]
    if isinstance(shape, list):
        if not isinstance(ours, list):
            return [f"{place}: {type(ours).__name__} instead of a list"]
        faults = (differences(each, shape[0], f"{place}[]") for each in ours if shape)
        return [fault for found in faults for fault in found]
    word = {bool: "bool", int: "number", float: "number", str: "text"}.get(type(ours), "other")
    return [] if word == shape else [f"{place}: {word} instead of {shape}"]


@pytest.fixture
async def api(services: Services) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the API in this process."""
    transport = httpx2.ASGITransport(create_docker_app(services))
    async with httpx2.AsyncClient(transport=transport, base_url="http://docker/v1.45") as client:
        yield client


async def get(api: httpx2.AsyncClient, path: str) -> Any:
    answer = await api.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


async def test_containers(api: httpx2.AsyncClient, services: Services) -> None:
    answer = await api.post("/containers/create?name=g1", json=CREATE)
    assert answer.status_code == 201, answer.text
    assert differences(answer.json(), SHAPES["create"]) == []
    assert answer.json()["Warnings"] == []
    container_id = answer.json()["Id"]
    assert differences(await get(api, "/containers/g1/json"), SHAPES["inspect_created"]) == []

    assert (await api.post("/containers/g1/start")).status_code == 204
    assert (await api.post("/containers/g1/start")).status_code == 304
    found = await get(api, "/containers/g1/json?size=1")
    assert differences(found, SHAPES["inspect_running"]) == []
    assert found["SizeRootFs"] >= found["SizeRw"] > 0
    assert differences(await get(api, "/containers/json?all=1"), SHAPES["list"]) == []
    assert differences(await get(api, "/containers/g1/top"), SHAPES["top"]) == []
    stats = await get(api, "/containers/g1/stats?stream=0")
    assert differences(stats, SHAPES["stats_once"]) == []
    assert stats["id"] == container_id

    assert (await api.post("/containers/g1/kill")).status_code == 204
    await until_state(services, container_id, ContainerState.EXITED)
    found = await get(api, "/containers/g1/json")
    assert differences(found, SHAPES["inspect_exited"]) == []
    assert found["State"]["ExitCode"] == 137
    assert (await api.post("/containers/g1/stop")).status_code == 304
    answer = await api.post("/containers/g1/wait")
    assert differences(answer.json(), SHAPES["wait_stopped"]) == []
    assert (await api.delete("/containers/g1")).status_code == 204
    answer = await api.post("/containers/prune")
    assert answer.json() == {"ContainersDeleted": None, "SpaceReclaimed": 0}


async def test_images(api: httpx2.AsyncClient) -> None:
    assert differences(await get(api, "/images/json"), SHAPES["images"]) == []
    assert differences(await get(api, "/images/busybox/json"), SHAPES["image_inspect"]) == []
    assert differences(await get(api, "/images/busybox/history"), SHAPES["image_history"]) == []


async def test_disk_usage(api: httpx2.AsyncClient) -> None:
    await api.post("/containers/create?name=g1", json=CREATE)
    found = await get(api, "/system/df")
    assert differences(found, {**SHAPES["df"], "Volumes": [], "BuildCache": []}) == []
    assert found["LayersSize"] == found["Images"][0]["Size"] > 0
    assert found["Images"][0]["Containers"] == 1
    assert list(await get(api, "/system/df?type=volume")) == ["Volumes"]
    assert (await api.get("/system/df?type=odd")).status_code == 400


async def test_networks_and_volumes(api: httpx2.AsyncClient) -> None:
    assert differences(await get(api, "/networks/none"), SHAPES["network"]) == []
    assert differences(await get(api, "/networks"), [SHAPES["network"]]) == []
    assert differences(await get(api, "/volumes"), SHAPES["volumes"]) == []


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/containers/json?filters=x", 400, "invalid filter"),
        ("DELETE", "/containers/g1", 404, "No such container: g1"),
        ("GET", "/images/nope/json", 404, "No such image: nope:latest"),
        (
            "POST",
            "/containers/create",
            400,
            "config cannot be empty in order to create a container",
        ),
        ("POST", "/containers/g1/wait?condition=odd", 400, 'invalid condition: "odd"'),
        ("POST", "/containers/g1/wait", 404, "No such container: g1"),
        ("POST", "/containers/g1/rename?name=x2", 404, "No such container: g1"),
        ("GET", "/volumes/gv", 404, "get gv: no such volume"),
        ("GET", "/networks/gn", 404, "network gn not found"),
        ("PUT", "/containers/json", 404, "page not found"),
    ],
    ids=lambda value: str(value),
)
async def test_errors(
    api: httpx2.AsyncClient, method: str, path: str, status: int, text: str
) -> None:
    answer = await api.request(method, path)
    assert (answer.status_code, answer.json()) == (status, {"message": text})


async def test_create_of_an_image_that_is_not_here(api: httpx2.AsyncClient) -> None:
    answer = await api.post("/containers/create", json={"Image": "nope"})
    assert (answer.status_code, answer.json()) == (404, {"message": "No such image: nope:latest"})


async def test_old_clients_see_words_for_empty_lists(api: httpx2.AsyncClient) -> None:
    image_id = (await get(api, "/images/busybox/json"))["Id"]
    archive = (await api.get(f"/images/{image_id}/get")).content
    await api.delete("/images/busybox")
    await api.post("/images/load?quiet=1", content=archive)
    for version, tags in (("v1.24", ["<none>:<none>"]), ("v1.45", [])):
        answer = await api.get(f"http://docker/{version}/images/json")
        assert [each["RepoTags"] for each in answer.json()] == [tags]
