"""`docker cp`, diff, export and commit on real VMs: what is copied is what was there."""

import asyncio
import io
import os
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.docker_lab import DockerClient, needs_docker_cli
from tests.integration.engine_process import EngineProcess, build_shared_guest

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(300), needs_docker_cli]

DEADLINE_S = 120.0
MIB = 1 << 20
SPARSE_BYTES = 64 * MIB
MTIME_S = 1_600_000_000
# What the agent may not be fooled by: a link out of the root, and one that goes round.
MAKE = (
    "mkdir -p /data/d; echo file >/data/f; chown 12:34 /data/f; chmod 4750 /data/f;"
    "ln /data/f /data/d/hard; ln -s ../f /data/d/soft; ln -s /data/loop /data/loop;"
    "mkfifo /data/fifo; mknod /data/null c 1 3; chmod 1777 /data/d;"
    "ln -s /../../../../../etc /data/out; touch -d @1600000000 /data/f;"
    "dd if=/dev/zero of=/data/sparse bs=1 count=0 seek=64M 2>/dev/null;"
    "printf end | dd of=/data/sparse bs=1 seek=1000000 conv=notrunc 2>/dev/null; sync"
)


@pytest.fixture(scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EngineProcess]:
    guest = await build_shared_guest(tmp_path_factory.mktemp("guest"))
    async with EngineProcess(tmp_path_factory.mktemp("engine"), guest) as engine:
        await engine.start()
        yield engine


@pytest.fixture(scope="module")
async def docker(engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> DockerClient:
    return DockerClient(
        f"unix://{engine.data_dir / 'docker.sock'}", tmp_path_factory.mktemp("client")
    )


@pytest.fixture(params=["running", "stopped"])
async def box(request: pytest.FixtureRequest, docker: DockerClient) -> AsyncIterator[str]:
    """A container with files of all kinds."""
    more = "; sleep 1000" if request.param == "running" else ""
    name = f"box-{request.param}"
    await docker.ok(
        "run", "-d", "--network", "none", "--name", name, "busybox", "sh", "-c", MAKE + more,
        deadline_s=DEADLINE_S,
    )  # fmt: skip
    if request.param == "running":
        await until_made(docker, name)
    else:
        assert await docker.ok("wait", name, deadline_s=DEADLINE_S) == "0\n"
    yield name
    await docker.ok("rm", "-f", name, deadline_s=DEADLINE_S)


async def until_made(docker: DockerClient, name: str) -> None:
    """Wait until a running container has made its files."""
    script = "until grep -q sleep /proc/1/cmdline && pidof sleep; do usleep 50000; done"
    await docker.ok("exec", name, "sh", "-c", script, deadline_s=DEADLINE_S)


async def contents(docker: DockerClient, *words: str) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    command = ("cp", words[0], "-") if len(words) == 1 else words
    process = await docker.start(*command)
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        found = {}
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            found[member.name] = member, file.read() if file else b""
        return found


async def test_all_kinds_of_files_come_out(box: str, docker: DockerClient) -> None:
    found = await contents(docker, f"{box}:/data")
    members = {name: member for name, (member, _) in found.items()}
    assert sorted(members) == [
        "data", "data/d", "data/d/hard", "data/d/soft", "data/f", "data/fifo", "data/loop",
        "data/null", "data/out", "data/sparse",
    ]  # fmt: skip
    hard, file = members["data/d/hard"], members["data/f"]
    assert found["data/d/hard"][1] == b"file\n"
    assert (file.islnk(), file.linkname) == (True, "data/d/hard")
    assert (hard.uid, hard.gid, hard.mode, hard.mtime) == (12, 34, 0o4750, MTIME_S)
    assert members["data/d"].mode == 0o1777
    assert members["data/d/soft"].linkname == "../f"
    assert members["data/out"].linkname == "/../../../../../etc"
    assert members["data/fifo"].isfifo()
    assert (members["data/null"].devmajor, members["data/null"].devminor) == (1, 3)
    sparse = found["data/sparse"][1]
    assert len(sparse) == SPARSE_BYTES
    assert sparse[1_000_000:1_000_003] == b"end"
    assert sparse.count(0) == SPARSE_BYTES - 3


async def test_a_link_out_of_the_root_leads_into_it(box: str, docker: DockerClient) -> None:
    inside = await contents(docker, f"{box}:/etc/passwd")
    through = await contents(docker, f"{box}:/data/out/passwd")
    assert inside["passwd"][1] == through["passwd"][1] != Path("/etc/passwd").read_bytes()  # noqa: ASYNC240
    ran = await docker.run("cp", f"{box}:/data/loop/x", "-", deadline_s=DEADLINE_S)
    assert ran.code == 1


async def test_all_kinds_of_files_go_in(box: str, docker: DockerClient) -> None:
    await docker.ok("cp", "-", f"{box}:/data", stdin=all_kinds(), deadline_s=DEADLINE_S)
    found = await contents(docker, f"{box}:/data/new")
    members = {name: member for name, (member, _) in found.items()}
    assert sorted(members) == [
        "new", "new/cap", "new/d", "new/d/f", "new/dev", "new/fifo", "new/hard", "new/link",
    ]  # fmt: skip
    file, hard = members["new/d/f"], members["new/hard"]
    assert found["new/d/f"][1] == b"content"
    assert (hard.islnk(), hard.linkname) == (True, "new/d/f")
    assert (file.uid, file.gid, file.mode, file.mtime) == (1234, 70000, 0o2751, MTIME_S)
    assert (members["new/d"].mode, members["new/d"].mtime) == (0o700, MTIME_S)
    assert members["new/link"].linkname == "/nowhere"
    assert (members["new/dev"].isblk(), members["new/dev"].devmajor) == (True, 7)
    assert members["new/fifo"].mode == 0o600
    assert members["new/cap"].pax_headers["SCHILY.xattr.user.note"] == "remember"


async def test_diff_is_exact(box: str, docker: DockerClient) -> None:
    await docker.ok("cp", "-", f"{box}:/", stdin=archive({"added/x": b"1", "etc/passwd": b"2"}))
    lines = (await docker.ok("diff", box, deadline_s=DEADLINE_S)).splitlines()
    assert {
        "A /added", "A /added/x", "C /etc", "C /etc/passwd", "A /data", "A /data/d", "A /data/f",
        "A /data/d/hard", "A /data/d/soft", "A /data/fifo", "A /data/loop", "A /data/null",
        "A /data/out", "A /data/sparse",
    } == set(lines)  # fmt: skip


async def test_diff_of_what_was_deleted_and_of_nothing(docker: DockerClient) -> None:
    for name, script, expected in (
        ("nothing", "true", []),
        ("deleted", "rm /etc/passwd; rm -rf /tmp", ["C /etc", "D /etc/passwd", "D /tmp"]),
    ):
        await docker.ok(
            "run", "--network", "none", "--name", name, "busybox", "sh", "-c", script,
            deadline_s=DEADLINE_S,
        )  # fmt: skip
        lines = (await docker.ok("diff", name, deadline_s=DEADLINE_S)).splitlines()
        assert lines == expected
        await docker.ok("rm", name, deadline_s=DEADLINE_S)


async def test_export_has_no_more_than_the_root(box: str, docker: DockerClient) -> None:
    found = await contents(docker, "export", box)
    assert "bin/busybox" in found or "bin/sh" in found
    assert found["data/f"][0].islnk()
    assert [name for name in found if name.startswith(("proc/", "sys/", "dev/"))] == []


async def test_a_committed_image_has_the_changes_and_runs(box: str, docker: DockerClient) -> None:
    await docker.ok("cp", "-", f"{box}:/tmp", stdin=archive({"put": b"in"}))
    words = ("exec", box) if box.endswith("running") else ()
    if words:
        await docker.ok(*words, "rm", "-f", "/etc/passwd", deadline_s=DEADLINE_S)
        await docker.ok(*words, "sh", "-c", "rm -rf /tmp2; mkdir /tmp2", deadline_s=DEADLINE_S)
    await docker.ok("commit", box, "made", deadline_s=DEADLINE_S)
    script = (
        "cat /tmp/put; stat -c ' %u:%g %a %h %Y' /data/f; readlink /data/out; cat /data/d/hard;"
        "stat -c %s /data/sparse; stat -c %F /data/fifo; ls /etc/passwd 2>/dev/null"
    )
    out = await docker.ok(
        "run", "--rm", "--network", "none", "made", "sh", "-c", f"{script}; true",
        deadline_s=DEADLINE_S,
    )  # fmt: skip
    expected = [
        f"in 12:34 4750 2 {MTIME_S}", "/../../../../../etc", "file", str(SPARSE_BYTES), "fifo",
    ]  # fmt: skip
    assert out.splitlines() == expected + ([] if words else ["/etc/passwd"])
    await docker.ok("rmi", "made", deadline_s=DEADLINE_S)


async def test_files_outlive_the_service_vm_and_a_start(docker: DockerClient) -> None:
    await docker.ok("create", "--network", "none", "--name", "later", "busybox", "cat", "/tmp/f")
    await docker.ok("cp", "-", "later:/tmp", stdin=archive({"f": b"put in before\n"}))
    out = await docker.ok("start", "-a", "later", deadline_s=DEADLINE_S)
    assert out == "put in before\n"
    await docker.ok("rm", "later", deadline_s=DEADLINE_S)


async def test_a_large_file_needs_no_memory_of_the_engine(
    engine: EngineProcess, docker: DockerClient, tmp_path: Path
) -> None:
    size = 200 * MIB
    await asyncio.to_thread(write_noise, tmp_path / "big", size)
    await docker.ok("create", "--network", "none", "--name", "large", "busybox", "true")
    before = peak_bytes(engine)
    await docker.ok("cp", str(tmp_path / "big"), "large:/tmp/big", deadline_s=DEADLINE_S)
    await docker.ok("cp", "large:/tmp/big", str(tmp_path / "back"), deadline_s=DEADLINE_S)
    assert peak_bytes(engine) - before < 48 * MIB
    same = await asyncio.to_thread(same_content, tmp_path / "big", tmp_path / "back")
    assert same
    await docker.ok("rm", "large", deadline_s=DEADLINE_S)


def write_noise(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))


def same_content(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        while piece := first.read(MIB):
            if piece != second.read(MIB):
                return False
        return not second.read(1)


def peak_bytes(engine: EngineProcess) -> int:
    status = Path(f"/proc/{engine.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def all_kinds() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, kind: bytes, mode: int, content: bytes = b"", **more: object) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.size, info.mtime = kind, mode, len(content), MTIME_S
            info.uid, info.gid = 1234, 70000
            for key, value in more.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))

        add("new/d", tarfile.DIRTYPE, 0o700)
        add("new/d/f", tarfile.REGTYPE, 0o2751, b"content")
        add("new/hard", tarfile.LNKTYPE, 0o644, linkname="new/d/f")
        add("new/link", tarfile.SYMTYPE, 0o777, linkname="/nowhere")
        add("new/dev", tarfile.BLKTYPE, 0o660, devmajor=7, devminor=1)
        add("new/fifo", tarfile.FIFOTYPE, 0o600)
        xattrs = {"SCHILY.xattr.user.note": "remember"}
        add("new/cap", tarfile.REGTYPE, stat.S_IRUSR, b"x", pax_headers=xattrs)
    return out.getvalue()
