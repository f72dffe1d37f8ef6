"""The docker CLI on a real engine with real VMs: what a container finds is what was asked for."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.docker_lab import DockerClient, needs_docker_cli
from tests.integration.engine_process import EngineProcess, build_shared_guest

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(240), needs_docker_cli]

DEADLINE_S = 60.0
ALL_CAPABILITIES = (1 << 41) - 1


@pytest.fixture(scope="module")
async def docker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DockerClient]:
    """The CLI on the unix socket of an engine."""
    guest = await build_shared_guest(tmp_path_factory.mktemp("guest"))
    async with EngineProcess(tmp_path_factory.mktemp("engine"), guest) as engine:
        await engine.start()
        host = f"unix://{engine.data_dir / 'docker.sock'}"
        yield DockerClient(host, tmp_path_factory.mktemp("client"))


async def run(docker: DockerClient, *args: str) -> str:
    """What a container prints that is gone afterwards."""
    return await docker.ok("run", "--rm", "--network", "none", *args, deadline_s=DEADLINE_S)


async def test_run_echo(docker: DockerClient) -> None:
    assert await run(docker, "busybox", "echo", "hi") == "hi\n"


async def test_what_was_asked_for_is_there(docker: DockerClient) -> None:
    script = (
        "id -u; id -G; hostname; pwd; echo $GREETING; ulimit -n; cat /proc/sys/kernel/domainname;"
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start;"
        "df -k /dev/shm | tail -1 | awk '{print $2}';"
        "mount | grep -c 'on /scratch type tmpfs'; grep -c 'quay.example' /etc/hosts;"
        "cat /etc/resolv.conf; touch /x 2>/dev/null || echo read-only; cat /proc/self/oom_score_adj"
    )
    out = await run(
        docker,
        "--user", "1000:1000", "--group-add", "2000", "--hostname", "quay",
        "--domainname", "example", "--workdir", "/srv", "--env", "GREETING=hello",
        "--ulimit", "nofile=1234", "--sysctl", "net.ipv4.ip_unprivileged_port_start=80",
        "--shm-size", "32m", "--tmpfs", "/scratch:size=1m", "--add-host", "quay.example:192.0.2.7",
        "--dns", "192.0.2.53", "--read-only", "--oom-score-adj", "200",
        "busybox", "sh", "-c", script,
    )  # fmt: skip
    assert out.splitlines() == [
        "1000", "1000 2000", "quay", "/srv", "hello", "1234", "example", "80", "32768", "1", "1",
        "nameserver 192.0.2.53", "read-only", "200",
    ]  # fmt: skip


async def test_privileged_has_all_of_its_machine(docker: DockerClient) -> None:
    script = "grep -E '^(CapEff|Seccomp):' /proc/self/status | awk '{print $2}'; ls /dev | wc -l"
    usual = (await run(docker, "busybox", "sh", "-c", script)).split()
    privileged = (await run(docker, "--privileged", "busybox", "sh", "-c", script)).split()
    assert usual[:2] == ["00000000a80425fb", "2"]
    assert (int(privileged[0], 16), privileged[1]) == (ALL_CAPABILITIES, "0")
    assert int(privileged[2]) > int(usual[2])


async def test_seccomp_and_capabilities_by_option(docker: DockerClient) -> None:
    script = "grep -E '^(CapEff|Seccomp|NoNewPrivs):' /proc/self/status | awk '{print $2}'"
    options = ("--cap-drop", "ALL", "--cap-add", "CHOWN", "--security-opt", "no-new-privileges",
               "--security-opt", "seccomp=unconfined")  # fmt: skip
    out = await run(docker, *options, "busybox", "sh", "-c", script)
    assert sorted(out.split()) == ["0", "0000000000000001", "1"]


async def test_a_device_of_the_machine(docker: DockerClient) -> None:
    out = await run(
        docker, "--device", "/dev/kmsg:/dev/log-of-kernel:r", "busybox", "ls", "-l",
        "/dev/log-of-kernel",
    )  # fmt: skip
    assert out.startswith("c")
    assert out.split()[4:6] == ["1,", "11"]
    ran = await docker.run(
        "run",
        "--rm",
        "--network",
        "none",
        "--device",
        "/dev/none",
        "busybox",
        deadline_s=DEADLINE_S,
    )
    assert (ran.code, "no device /dev/none" in ran.err) == (125, True)


async def test_a_command_that_is_not_there(docker: DockerClient) -> None:
    ran = await docker.run("run", "--rm", "--network", "none", "busybox", "nonsense",
                           deadline_s=DEADLINE_S)  # fmt: skip
    assert ran.code == 127
    assert "executable file not found in $PATH" in ran.err


async def test_top_stats_health_and_update(docker: DockerClient) -> None:
    await docker.ok(
        "run", "-d", "--name", "box", "--network", "none", "--health-cmd", "test -e /ok",
        "--health-interval", "200ms", "--health-retries", "1", "-m", "100m",
        "busybox", "sh", "-c", "touch /ok; sleep 1000", deadline_s=DEADLINE_S,
    )  # fmt: skip
    try:
        await _until_health(docker, "healthy")
        lines = (await docker.ok("top", "box")).splitlines()
        assert lines[0].split() == "UID PID PPID C STIME TTY TIME CMD".split()
        assert any(line.endswith("sleep 1000") for line in lines[1:])
        form = "{{.MemUsage}} {{.PIDs}}"
        stats = await docker.ok("stats", "--no-stream", "--format", form, "box")
        assert "/ 100MiB" in stats
        assert await docker.ok("update", "--pids-limit", "40", "box") == "box\n"
        assert (await docker.ok("exec", "box", "cat", "/sys/fs/cgroup/pids.max")).strip() == "40"
        await docker.ok("exec", "box", "rm", "/ok")
        await _until_health(docker, "unhealthy")
    finally:
        await docker.ok("rm", "-f", "box", deadline_s=DEADLINE_S)


async def _until_health(docker: DockerClient, status: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = json.loads(await docker.ok("inspect", "box"))[0]["State"]["Health"]
            if found["Status"] == status:
                return


async def test_images_of_another_engine(docker: DockerClient, tmp_path: Path) -> None:
    archive = tmp_path / "busybox.tar"
    await docker.ok("save", "-o", str(archive), "busybox", deadline_s=DEADLINE_S)
    await docker.ok("load", "-i", str(archive), deadline_s=DEADLINE_S)
    exported = await run(docker, "busybox", "sh", "-c", "echo one > /tmp/x; tar -C /tmp -c x")
    assert "one" in exported
    await docker.ok("import", "-", "made:1", stdin=exported.encode(), deadline_s=DEADLINE_S)
    assert (await docker.ok("images", "-q", "made:1")).strip()
