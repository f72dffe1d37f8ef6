"""Images over the Docker API, by the real docker CLI."""

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from app.services.bundle import Services
from tests.integration.docker_lab import DockerClient, needs_docker_cli

pytestmark = needs_docker_cli

SKOPEO = shutil.which("skopeo")


def rootfs(marker: str = "x") -> bytes:
    """A root filesystem of one file."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        entry = tarfile.TarInfo("marker")
        entry.size = len(marker)
        archive.addfile(entry, io.BytesIO(marker.encode()))
    return data.getvalue()


async def inspect(docker: DockerClient, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(await docker.ok("image", "inspect", name))
    return found[0]


async def names(docker: DockerClient, *more: str) -> list[str]:
    out = await docker.ok("images", "--format", "{{.Repository}}:{{.Tag}}", *more)
    return sorted(out.split())


async def test_images_inspect_history(docker: DockerClient) -> None:
    found = await inspect(docker, "busybox")
    assert found["RepoTags"] == ["busybox:latest"]
    assert found["Id"].startswith("sha256:")
    assert (await docker.ok("images", "-q", "--no-trunc")).strip() == found["Id"]
    assert await names(docker) == ["busybox:latest"]
    history = (await docker.ok("history", "--format", "{{.ID}}", "--no-trunc", "busybox")).split()
    assert history[0] == found["Id"]


async def test_tag_and_untag(docker: DockerClient) -> None:
    await docker.ok("tag", "busybox", "registry.example:5000/team/app:v1")
    assert await names(docker) == ["busybox:latest", "registry.example:5000/team/app:v1"]
    out = await docker.ok("rmi", "registry.example:5000/team/app:v1")
    assert out == "Untagged: registry.example:5000/team/app:v1\n"
    ran = await docker.run("tag", "busybox", "UPPER")
    assert ran.code == 1


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ("reference=busy*", ["busybox:latest"]),
        ("reference=*/app", ["team/app:v1"]),
        ("reference=*", ["busybox:latest"]),
        ("reference=team/*:v2", []),
        ("dangling=true", []),
        ("dangling=false", ["busybox:latest", "team/app:v1"]),
        ("label=no.such", []),
    ],
)
async def test_images_filters(docker: DockerClient, filter: str, found: list[str]) -> None:
    await docker.ok("tag", "busybox", "team/app:v1")
    assert await names(docker, "--filter", filter) == found


async def test_save_remove_load(docker: DockerClient, tmp_path: Path) -> None:
    await docker.ok("tag", "busybox", "team/app:v1")
    image_id = (await inspect(docker, "busybox"))["Id"]
    archive = tmp_path / "both.tar"
    await docker.ok("save", "-o", str(archive), "busybox", "team/app:v1")

    out = await docker.ok("rmi", "busybox", "team/app:v1")
    assert f"Deleted: {image_id}\n" in out
    out = await docker.ok("load", "-i", str(archive))

    assert "Loaded image: busybox:latest\n" in out
    assert "Loaded image: team/app:v1\n" in out
    assert (await inspect(docker, "team/app:v1"))["Id"] == image_id
    ran = await docker.run("run", "--network", "none", "-d", "busybox", "echo", "hi")
    assert ran.code == 0, ran


async def test_load_tells_the_names_of_the_archive_only(docker: DockerClient) -> None:
    await docker.ok("tag", "busybox", "other:1")
    archive = await docker.start("save", "busybox")
    data, _ = await archive.communicate()
    assert await docker.ok("load", "-q", stdin=data) == "Loaded image: busybox:latest\n"
    assert await names(docker) == ["busybox:latest", "other:1"]


async def test_load_takes_standard_input(docker: DockerClient, tmp_path: Path) -> None:
    archive = tmp_path / "one.tar"
    await docker.ok("save", "-o", str(archive), "busybox")
    out = await docker.ok("load", "-q", stdin=archive.read_bytes())
    assert out == "Loaded image: busybox:latest\n"


async def test_load_of_an_image_by_its_id(docker: DockerClient, tmp_path: Path) -> None:
    image_id = (await inspect(docker, "busybox"))["Id"]
    archive = tmp_path / "one.tar"
    await docker.ok("save", "-o", str(archive), image_id)
    await docker.ok("rmi", "busybox")
    out = await docker.ok("load", "-q", "-i", str(archive))
    assert out == f"Loaded image ID: {image_id}\n"
    assert await names(docker) == ["<none>:<none>"]


async def test_load_of_what_is_no_archive(docker: DockerClient) -> None:
    ran = await docker.run("load", stdin=b"no archive at all" * 100)
    assert ran.code == 1
    assert ran.err


@pytest.mark.skipif(SKOPEO is None, reason="skopeo is not installed")
async def test_skopeo_reads_what_is_saved(docker: DockerClient, tmp_path: Path) -> None:
    archive = tmp_path / "one.tar"
    await docker.ok("save", "-o", str(archive), "busybox")
    assert SKOPEO is not None
    for source in (f"docker-archive:{archive}", f"oci-archive:{archive}"):
        answer = subprocess.run(  # noqa: ASYNC221
            [SKOPEO, "inspect", "--config", source], capture_output=True, check=True
        )
        assert json.loads(answer.stdout)["os"] == "linux"


async def test_import_with_changes(docker: DockerClient, tmp_path: Path) -> None:
    archive = tmp_path / "rootfs.tar"
    archive.write_bytes(rootfs())
    changes = ['CMD ["/bin/app"]', 'ENV A=1 B="two words"', "EXPOSE 80", "LABEL l=v"]
    options = [word for change in changes for word in ("--change", change)]

    image_id = await docker.ok("import", *options, "-m", "made here", str(archive), "made:1")

    found = await inspect(docker, "made:1")
    assert image_id.strip() == found["Id"]
    config = found["Config"]
    assert config["Cmd"] == ["/bin/app"]
    assert config["Env"] == ["A=1", "B=two words"]
    assert config["ExposedPorts"] == {"80/tcp": {}}
    assert config["Labels"] == {"l": "v"}
    assert (await docker.ok("history", "--format", "{{.Comment}}", "made:1")).strip() == "made here"


async def test_import_refuses_a_change_it_does_not_know(docker: DockerClient) -> None:
    ran = await docker.run("import", "--change", "RUN x", "-", "made:1", stdin=rootfs())
    assert (ran.code, "RUN is not a valid change command" in ran.err) == (1, True)


async def test_prune(docker: DockerClient) -> None:
    await docker.ok("import", "-", "one:1", stdin=rootfs("one"))
    await docker.ok("import", "-", "one:1", stdin=rootfs("two"))  # takes the name
    out = await docker.ok("image", "prune", "-f")
    assert "deleted: sha256:" in out
    assert not out.endswith("reclaimed space: 0B\n")
    await docker.ok("create", "busybox")
    await docker.ok("image", "prune", "-a", "-f")
    assert await names(docker) == ["busybox:latest"]


async def test_remove_what_is_used(docker: DockerClient) -> None:
    container_id = (await docker.ok("create", "busybox", "true")).strip()
    image_id = (await inspect(docker, "busybox"))["Id"].removeprefix("sha256:")
    ran = await docker.run("rmi", "busybox")
    assert ran.err == (
        'Error response from daemon: conflict: unable to remove repository reference "busybox" '
        f"(must force) - container {container_id[:12]} is using its referenced image "
        f"{image_id[:12]}\n"
    )


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("image inspect nope", "Error response from daemon: No such image: nope:latest\n"),
        ("rmi nope", "Error response from daemon: No such image: nope:latest\n"),
        ("history nope", "Error response from daemon: No such image: nope:latest\n"),
        ("save nope", "Error response from daemon: No such image: nope:latest\n"),
        ("search busybox", "no index of images"),
        ("images --filter odd=1", "invalid filter 'odd'"),
    ],
    ids=lambda value: value.split()[0],
)
async def test_refusals(docker: DockerClient, command: str, text: str) -> None:
    ran = await docker.run(*command.split())
    assert (ran.code, text in ran.err) == (1, True), ran


async def test_volumes_and_networks_say_what_there_is(docker: DockerClient) -> None:
    assert await docker.ok("volume", "ls", "-q") == ""
    assert await docker.ok("network", "ls", "--format", "{{.Name}} {{.Driver}}") == "none null\n"
    found = json.loads(await docker.ok("network", "inspect", "none"))[0]
    assert found["Name"] == "none"
    for command, text in (
        ("volume create data", "Volumes are not available"),
        ("volume rm data", "no such volume"),
        ("volume inspect data", "no such volume"),
        ("network create net", "Networks are not available"),
        ("network inspect net", "network net not found"),
        ("network rm none", "pre-defined network"),
    ):
        ran = await docker.run(*command.split())
        assert (ran.code, text in ran.err) == (1, True), ran
    assert "0B" in await docker.ok("volume", "prune", "-f")
    await docker.ok("network", "prune", "-f")


async def test_system_df(docker: DockerClient) -> None:
    await docker.ok("tag", "busybox", "other:1")
    lines = (await docker.ok("system", "df", "--format", "{{.Type}} {{.TotalCount}}")).splitlines()
    assert lines == ["Images 1", "Containers 0", "Local Volumes 0", "Build Cache 0"]
    assert "busybox" in await docker.ok("system", "df", "-v")


async def test_system_prune(docker: DockerClient) -> None:
    container_id = (await docker.ok("create", "busybox")).strip()
    await docker.ok("import", "-", stdin=rootfs())
    out = await docker.ok("system", "prune", "-f")
    assert container_id in out
    assert "Deleted Images:" in out
    assert "Total reclaimed space:" in out
    assert await names(docker) == ["busybox:latest"]


async def test_removal_is_in_the_journal(docker: DockerClient, services: Services) -> None:
    await docker.ok("tag", "busybox", "other:1")
    await docker.ok("rmi", "other:1")
    events = await services.events.list(limit=2)
    assert [event.action for event in events] == ["untag", "tag"]
