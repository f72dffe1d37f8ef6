"""`docker commit` by the real docker CLI, over the fake machine, and a run of the result."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.domain.container import ContainerState
from app.services.bundle import Services
from tests.integration.docker_lab import DockerClient, needs_docker_cli
from tests.integration.test_docker_copy import archive
from tests.integration.test_docker_events import past_events

pytestmark = needs_docker_cli


@pytest.fixture(params=["running", "stopped"])
async def box(request: pytest.FixtureRequest, docker: DockerClient) -> str:
    """A container that has changed some files."""
    command = ("loop", "1") if request.param == "running" else ("true",)
    verb = ("run", "-d") if request.param == "running" else ("create",)
    await docker.ok(
        *verb, "--network", "none", "--env", "COLOUR=blue", "--label", "team=web", "--name", "box",
        "busybox", *command,
    )  # fmt: skip
    await docker.ok("cp", "-", "box:/etc", stdin=archive({"passwd": b"x", "new/file": b"y" * 5000}))
    return "box"


async def inspect(docker: DockerClient, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(await docker.ok("image", "inspect", name))
    return found[0]


async def test_what_was_changed_is_a_layer_of_a_new_image(box: str, docker: DockerClient) -> None:
    base = await inspect(docker, "busybox")
    out = await docker.ok(
        "commit", "--message", "why", "--author", "me", "--change", "ENV COLOUR=red SIZE=xl",
        "--change", 'CMD ["echo", "from", "the", "image"]', "--change", "ONBUILD RUN true",
        "--change", "EXPOSE 80", "--change", "WORKDIR /srv", "--change", "USER 7",
        "--change", "VOLUME /data", "--change", "LABEL a=b", box, "made:one",
    )  # fmt: skip
    made = await inspect(docker, "made:one")
    assert made["Id"] == out.strip()
    assert made["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"]
    assert made["Parent"] == base["Id"]
    assert (made["Comment"], made["Author"]) == ("why", "me")
    config = made["Config"]
    assert {"COLOUR=red", "SIZE=xl"} <= set(config["Env"])
    assert config["Cmd"] == ["echo", "from", "the", "image"]
    assert config["Labels"] == {"team": "web", "a": "b"}
    assert (config["WorkingDir"], config["User"]) == ("/srv", "7")
    assert (config["ExposedPorts"], config["Volumes"]) == ({"80/tcp": {}}, {"/data": {}})
    lines = (await docker.ok("history", "--format", "{{.Comment}}|{{.Size}}", "made:one")).split(
        "\n"
    )
    assert re.fullmatch(r"why\|[0-9.]+kB", lines[0])


async def test_the_image_runs(box: str, docker: DockerClient) -> None:
    await docker.ok("commit", "--change", "CMD echo hello", box, "made")
    assert (await inspect(docker, "made"))["Config"]["Cmd"] == ["/bin/sh", "-c", "echo hello"]
    await docker.ok("commit", "--change", 'CMD ["echo", "hi"]', box, "made")
    assert await docker.ok("run", "--rm", "--network", "none", "made") == "hi\n"


async def test_a_container_without_changes_gives_no_layer(docker: DockerClient) -> None:
    await docker.ok("create", "--network", "none", "--name", "box", "busybox", "true")
    await docker.ok("commit", "box", "same")
    base, made = await inspect(docker, "busybox"), await inspect(docker, "same")
    assert made["RootFS"] == base["RootFS"]
    assert made["Id"] != base["Id"]


async def test_a_commit_without_a_name_and_of_nothing(docker: DockerClient) -> None:
    await docker.ok("create", "--network", "none", "--name", "box", "busybox", "true")
    image_id = (await docker.ok("commit", "box")).strip()
    assert (await inspect(docker, image_id))["RepoTags"] == []
    ran = await docker.run("commit", "nobox", "made")
    assert ran.code == 1
    assert "No such container: nobox" in ran.err
    ran = await docker.run("commit", "--change", "FROM x", "box", "made")
    assert ran.code == 1
    assert "FROM is not a valid change command" in ran.err


async def test_processes_go_on_after_a_commit(docker: DockerClient, services: Services) -> None:
    await docker.ok("run", "-d", "--network", "none", "--name", "box", "busybox", "loop", "0.05")
    await docker.ok("commit", "box", "made")
    container = await services.containers.get("box")
    assert container.state is ContainerState.RUNNING
    seen = len(await services.logs.read(container.id, from_seq=1, limit=100_000))
    process = await docker.start("logs", "-f", "--since", "0s", "box")
    assert process.stdout is not None
    while int((await process.stdout.readline()).split()[-1]) <= seen:
        pass
    process.kill()
    await process.wait()


async def test_what_is_done_with_files_is_told(docker: DockerClient, tmp_path: Path) -> None:
    await docker.ok("create", "--network", "none", "--name", "box", "busybox", "true")
    await docker.ok("cp", "-", "box:/tmp", stdin=archive({"f": b"x"}))
    await docker.ok("export", "--output", str(tmp_path / "out"), "box")
    await docker.ok("commit", "--message", "why", "box", "made:one")
    told = await past_events(docker, container=["box"])
    assert [event["Action"] for event in told] == ["create", "extract-to-dir", "export", "commit"]
    made = told[-1]["Actor"]["Attributes"]
    assert (made["comment"], made["imageRef"]) == ("why", "made:one")
    assert made["imageID"] == (await inspect(docker, "made:one"))["Id"]
