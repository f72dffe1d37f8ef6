"""`docker cp`, diff and export by the real docker CLI, over the fake machine."""

import asyncio
import base64
import io
import json
import os
import stat
import tarfile
from pathlib import Path

import pytest

from app.domain.container import ContainerState
from app.services.bundle import Services
from tests.integration.docker_lab import DockerClient, needs_docker_cli
from tests.integration.engine_lab import DEADLINE_S, until_state

pytestmark = needs_docker_cli


@pytest.fixture(params=["running", "stopped"])
async def box(request: pytest.FixtureRequest, docker: DockerClient) -> str:
    """A container whose files are reached in its own VM, or by a service VM."""
    if request.param == "running":
        await docker.ok("run", "-d", "--network", "none", "--name", "box", "busybox", "loop", "1")
    else:
        await docker.ok("create", "--network", "none", "--name", "box", "busybox", "true")
    return "box"


async def test_a_file_goes_in_and_comes_out(box: str, docker: DockerClient, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    source = tmp_path / "source"
    source.write_bytes(content)
    source.chmod(0o640)
    await docker.ok("cp", str(source), f"{box}:/tmp/there")
    await docker.ok("cp", f"{box}:/tmp/there", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content
    assert stat.S_IMODE((tmp_path / "back").stat().st_mode) == 0o640
    await docker.ok("cp", str(source), f"{box}:/tmp")  # into the directory, by its own name
    await docker.ok("cp", f"{box}:/tmp/source", str(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == content


async def test_a_directory_goes_in_and_comes_out(
    box: str, docker: DockerClient, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner/file").write_text("content")
    (tree / "link").symlink_to("inner/file")
    os.link(tree / "inner/file", tree / "hard")
    await docker.ok("cp", str(tree), f"{box}:/tmp/new")  # is not there: it gets that name
    await docker.ok("cp", f"{tree}/.", f"{box}:/tmp")  # what is in it
    await docker.ok("cp", f"{box}:/tmp/new", str(tmp_path / "back"))
    await docker.ok("cp", f"{box}:/tmp/.", str(tmp_path / "all"))
    for found in (tmp_path / "back", tmp_path / "all"):
        assert (found / "inner/file").read_text() == "content"
        assert (found / "link").readlink() == Path("inner/file")
        assert (found / "hard").read_text() == "content"
    assert (tmp_path / "all/new/link").is_symlink()


async def test_links_are_copied_or_followed(box: str, docker: DockerClient, tmp_path: Path) -> None:
    await docker.ok("cp", "-", f"{box}:/tmp", stdin=archive({"f": b"data"}))
    await docker.ok("cp", f"{box}:/var/temporary", str(tmp_path / "link"))
    assert (tmp_path / "link").readlink() == Path("/tmp")
    await docker.ok("cp", "-L", f"{box}:/var/temporary", str(tmp_path / "followed"))
    assert (tmp_path / "followed/f").read_bytes() == b"data"
    await docker.ok("cp", str(tmp_path / "followed/f"), f"{box}:/var/temporary/g")
    await docker.ok("cp", f"{box}:/tmp/g", str(tmp_path / "g"))
    assert (tmp_path / "g").read_bytes() == b"data"


async def test_streams_of_tar(box: str, docker: DockerClient, tmp_path: Path) -> None:
    await docker.ok("cp", "-", f"{box}:/tmp", stdin=archive({"a/b": b"one", "c": b"two"}))
    process = await docker.start("cp", f"{box}:/tmp", "-")
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        assert tar.getnames() == ["tmp", "tmp/a", "tmp/a/b", "tmp/c"]
        member = tar.extractfile("tmp/a/b")
        assert member is not None
        assert member.read() == b"one"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("box:/nope", "."), "Could not find the file /nope in container box"),
        (("box:/etc/nope/", "."), "Could not find the file /etc/nope"),
        (("/dev/null", "box:/nope/dir/"), "no such directory"),
        (("box:/etc/passwd/", "."), "not a directory"),
        (("nobox:/etc/passwd", "."), "No such container: nobox"),
    ],
    ids=["missing", "missing directory", "into missing", "file as directory", "no container"],
)
async def test_what_can_not_be_copied(
    docker: DockerClient, words: tuple[str, str], text: str, tmp_path: Path
) -> None:
    await docker.ok("create", "--network", "none", "--name", "box", "busybox", "true")
    ran = await docker.run("cp", words[0], words[1].replace(".", str(tmp_path)))
    assert ran.code == 1
    assert text in ran.err


async def test_directories_and_files_do_not_replace_each_other(
    box: str, docker: DockerClient, tmp_path: Path
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_text("x")
    await docker.ok("cp", str(tmp_path / "f"), f"{box}:/tmp/d")
    ran = await docker.run("cp", str(tmp_path / "d"), f"{box}:/tmp")
    assert ran.code == 1
    assert "cannot overwrite non-directory" in ran.err
    ran = await docker.run("cp", str(tmp_path / "d"), f"{box}:/tmp/d")
    assert ran.code == 1
    assert "cannot copy directory" in ran.err


async def test_an_archive_that_leads_out_is_refused(box: str, docker: DockerClient) -> None:
    for name in ("../../etc/evil", "a/../../evil"):
        ran = await docker.run("cp", "-", f"{box}:/tmp", stdin=archive({name: b"x"}))
        assert ran.code == 1
        assert "leads out of its directory" in ran.err
    ran = await docker.run("cp", "-", f"{box}:/tmp", stdin=b"no tar at all" * 100)
    assert ran.code == 1
    assert "the archive: bad checksum" in ran.err


async def test_a_read_only_container_takes_nothing(docker: DockerClient) -> None:
    await docker.ok(
        "create", "--read-only", "--network", "none", "--name", "box", "busybox", "true"
    )
    ran = await docker.run("cp", "-", "box:/tmp", stdin=archive({"f": b"x"}))
    assert ran.code == 1
    assert "container rootfs is marked read-only" in ran.err


async def test_diff_tells_what_was_added_changed_and_deleted(
    box: str, docker: DockerClient
) -> None:
    assert await docker.ok("diff", box) == ""
    await docker.ok("cp", "-", f"{box}:/etc", stdin=archive({"passwd": b"x", "new": b"y"}))
    lines = (await docker.ok("diff", box)).splitlines()
    assert lines == ["C /etc", "A /etc/new", "C /etc/passwd"]


async def test_export_is_the_root_file_system(
    box: str, docker: DockerClient, tmp_path: Path
) -> None:
    await docker.ok("cp", "-", f"{box}:/tmp", stdin=archive({"f": b"data"}))
    await docker.ok("export", "-o", str(tmp_path / "out.tar"), box)
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert {"etc", "etc/passwd", "tmp/f", "var/temporary"} <= set(tar.getnames())
        assert "." not in tar.getnames()


async def test_the_headers_of_a_path(docker: DockerClient) -> None:
    await docker.ok("create", "--network", "none", "--name", "box", "busybox", "true")
    reader, writer = await asyncio.open_unix_connection(docker.host.removeprefix("unix://"))
    writer.write(
        b"HEAD /v1.45/containers/box/archive?path=/tmp HTTP/1.1\r\nHost: d\r\n"
        b"Connection: close\r\n\r\n"
    )
    async with asyncio.timeout(DEADLINE_S):
        head = (await reader.read()).decode()
    writer.close()
    assert head.startswith("HTTP/1.1 200")
    value = next(
        line.split(": ", 1)[1]
        for line in head.split("\r\n")
        if line.lower().startswith("x-docker-container-path-stat: ")
    )
    assert json.loads(base64.b64decode(value)) == {
        "name": "tmp",
        "size": 0,
        "mode": 1 << 31 | 1 << 20 | 0o777,
        "mtime": "2023-11-14T22:13:20Z",
        "linkTarget": "",
    }


async def test_a_start_takes_the_disk_from_the_service_vm(
    docker: DockerClient, services: Services
) -> None:
    await docker.ok("create", "--network", "none", "--name", "box", "busybox", "true")
    await docker.ok("cp", "-", "box:/tmp", stdin=archive({"f": b"kept"}))
    await docker.ok("start", "box")
    container = await services.containers.get("box")
    await until_state(services, container.id, ContainerState.EXITED)
    process = await docker.start("cp", "box:/tmp/f", "-")
    out, _ = await process.communicate()
    assert b"kept" in out
    await docker.ok("rm", "box")


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()
