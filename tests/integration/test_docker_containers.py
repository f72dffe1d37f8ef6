"""Containers over the Docker API, by the real docker CLI, over the fake machine."""

import asyncio
import json
import re
from typing import Any

import pytest

from app.domain.container import ContainerState
from app.services.bundle import Services
from tests.integration.docker_lab import DockerClient, needs_docker_cli
from tests.integration.engine_lab import DEADLINE_S, until_state

pytestmark = needs_docker_cli

NO_NETWORK_WARNING = "Containers have no network card"
LOOP = ("busybox", "loop", "0.05")


async def inspect(docker: DockerClient, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(await docker.ok("inspect", name))
    return found[0]


async def started(docker: DockerClient, name: str, *more: str) -> str:
    """A container that counts for ever."""
    return (await docker.ok("run", "-d", "--network", "none", "--name", name, *more, *LOOP)).strip()


async def test_create_start_wait_logs_rm(docker: DockerClient) -> None:
    container_id = (await docker.ok("create", "--name", "one", "busybox", "echo", "hi")).strip()
    assert re.fullmatch("[0-9a-f]{64}", container_id)
    assert (await docker.ok("ps", "-aq", "--no-trunc")).strip() == container_id

    assert (await docker.ok("start", "one")).strip() == "one"
    assert (await docker.ok("wait", "one")).strip() == "0"
    assert await docker.ok("logs", "one") == "hi\n"
    stamped = await docker.ok("logs", "-t", "one")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z hi\n", stamped)
    assert (await docker.ok("rm", "one")).strip() == "one"
    assert await docker.ok("ps", "-aq") == ""


async def test_ps_tells_states(docker: DockerClient) -> None:
    await docker.ok("create", "--name", "made", "busybox", "echo", "one two")
    await started(docker, "runs")
    await docker.ok("run", "-d", "--name", "done", "busybox", "exit", "3")
    await docker.ok("wait", "done")
    form = "{{.Names}}|{{.Image}}|{{.Command}}|{{.State}}|{{.Status}}"

    lines = (await docker.ok("ps", "-a", "--no-trunc", "--format", form)).splitlines()

    assert len(lines) == 3
    assert re.fullmatch(r'done\|busybox\|"exit 3"\|exited\|Exited \(3\) .* ago', lines[0])
    assert re.fullmatch(r'runs\|busybox\|"loop 0.05"\|running\|Up .* second.*', lines[1])
    assert lines[2] == "made|busybox|\"echo 'one two'\"|created|Created"
    assert (await docker.ok("ps", "--format", "{{.Names}}")).split() == ["runs"]
    assert (await docker.ok("ps", "-n", "2", "--format", "{{.Names}}")).split() == ["done", "runs"]
    assert (await docker.ok("ps", "-l", "--format", "{{.Names}}")).split() == ["done"]


@pytest.mark.parametrize(
    ("filter", "names"),
    [
        ("status=running", ["bb"]),
        ("status=created", ["cc", "aa"]),
        ("name=^/?aa$", ["aa"]),
        ("label=team=web", ["bb"]),
        ("label=team", ["bb", "aa"]),
        ("ancestor=busybox", ["cc", "bb", "aa"]),
        ("ancestor=nothing", []),
        ("before=bb", ["aa"]),
        ("since=aa", ["cc", "bb"]),
        ("health=none", ["cc", "bb", "aa"]),
        ("expose=80/tcp", ["aa"]),
        ("network=none", ["cc", "bb", "aa"]),
        ("volume=x", []),
        ("exited=0", []),
    ],
)
async def test_ps_filters(docker: DockerClient, filter: str, names: list[str]) -> None:
    await docker.ok("create", "--name", "aa", "--label", "team=db", "--expose", "80", "busybox")
    await started(docker, "bb", "--label", "team=web")
    await docker.ok("create", "--name", "cc", "busybox")
    found = await docker.ok("ps", "-a", "--filter", filter, "--format", "{{.Names}}")
    assert found.split() == names


async def test_ps_refuses_a_filter_that_means_nothing(docker: DockerClient) -> None:
    ran = await docker.run("ps", "--filter", "status=odd")
    assert (ran.code, ran.err) == (1, "Error response from daemon: invalid filter 'status=odd'\n")


async def test_ps_shows_sizes(docker: DockerClient) -> None:
    await docker.ok("run", "-d", "--name", "aa", "busybox", "echo", "x")
    await docker.ok("wait", "aa")
    assert "(virtual " in await docker.ok("ps", "-as", "--format", "{{.Size}}")
    found = json.loads(await docker.ok("inspect", "-s", "aa"))[0]
    assert found["SizeRootFs"] > found["SizeRw"] > 0


async def test_stop_kill_restart_pause(docker: DockerClient) -> None:
    await docker.ok("run", "-d", "--name", "aa", "busybox", "trap", "7")
    assert await docker.ok("stop", "aa") == "aa\n"
    assert (await inspect(docker, "aa"))["State"]["ExitCode"] == 7
    assert await docker.ok("stop", "aa") == "aa\n"  # 304

    assert await docker.ok("restart", "aa") == "aa\n"
    assert await docker.ok("pause", "aa") == "aa\n"
    assert (await inspect(docker, "aa"))["State"]["Status"] == "paused"
    assert "(Paused)" in await docker.ok("ps", "--format", "{{.Status}}")
    assert await docker.ok("unpause", "aa") == "aa\n"
    assert await docker.ok("kill", "aa") == "aa\n"
    assert (await inspect(docker, "aa"))["State"]["ExitCode"] == 137


async def test_a_signal_reaches_the_process(docker: DockerClient) -> None:
    await docker.ok("run", "-d", "--name", "aa", "busybox", "trap", "9")
    assert await docker.ok("kill", "--signal", "TERM", "aa") == "aa\n"
    assert (await docker.ok("wait", "aa")).strip() == "9"
    await docker.ok("start", "aa")
    assert await docker.ok("stop", "--signal", "SIGTERM", "-t", "5", "aa") == "aa\n"


REFUSALS = {
    "kill idle": "cannot kill container: idle: container {id} is not running\n",
    "pause idle": "container {id} is not running\n",
    "rm runs": 'cannot remove container "/runs": container is running: stop the container before '
    "removing or force remove\n",
    "rename idle runs": 'Conflict. The container name "/runs" is already in use by container '
    '"{runs}". You have to remove (or rename) that container to be able to reuse that name.\n',
    "start nope": "No such container: nope\n",
    "kill --signal ODD runs": "Invalid signal: ODD\n",
    "create --restart sometimes busybox": "invalid restart policy: unknown policy 'sometimes'",
    "create --name _ busybox": "Invalid container name (_), only [a-zA-Z0-9][a-zA-Z0-9_.-]",
    "create --memory 1m busybox": "Minimum memory limit allowed is 6MB\n",
    "create --pid host busybox": "PID namespace mode host refused",
    "create -v /tmp:/tmp busybox": "volumes and bind mounts are not available",
    "create -p 80:80 busybox": "publishing port 80/tcp refused",
    "create --log-driver syslog busybox": "no log driver named 'syslog' is registered\n",
    "create --platform linux/s390x busybox": "Unable to find image 'busybox:latest' locally",
    "create --cap-add NONSENSE busybox": "there is no capability",
    "create --security-opt seccomp=unconfined --security-opt odd busybox": "--security-opt",
    "create --device /dev/x:/dev/y:z busybox": "",
}


@pytest.mark.parametrize("command", REFUSALS)
async def test_refusals(docker: DockerClient, command: str) -> None:
    idle = (await docker.ok("create", "--name", "idle", "busybox")).strip()
    runs = await started(docker, "runs")
    ran = await docker.run(*command.split())
    assert ran.code in {1, 125}, ran
    assert ran.err
    assert REFUSALS[command].format(id=idle, runs=runs) in ran.err


async def test_log_driver_none_keeps_nothing(docker: DockerClient) -> None:
    options = ("--network", "none", "--log-driver", "none")
    assert await docker.ok("run", "--name", "aa", *options, "busybox", "echo", "hi") == "hi\n"
    ran = await docker.run("logs", "aa")
    assert "configured logging driver does not support reading" in ran.err


async def test_rename_and_update(docker: DockerClient) -> None:
    await docker.ok("create", "--name", "aa", "-m", "64m", "busybox")
    await docker.ok("rename", "aa", "bb")
    await docker.ok(
        "update", "--memory", "128m", "--memory-swap", "256m", "--restart", "always", "bb"
    )
    host = (await inspect(docker, "bb"))["HostConfig"]
    assert host["Memory"] == 128 << 20
    assert host["RestartPolicy"] == {"Name": "always", "MaximumRetryCount": 0}


async def test_update_of_what_runs(docker: DockerClient, services: Services) -> None:
    await started(docker, "aa", "--memory", "200m")
    assert await docker.ok("update", "--pids-limit", "50", "--cpus", "0.5", "aa") == "aa\n"
    assert (await inspect(docker, "aa"))["HostConfig"]["NanoCpus"] == 500_000_000
    ran = await docker.run("update", "--memory", "6g", "--memory-swap", "-1", "aa")
    assert (ran.code, "virtual machine" in ran.err) == (1, True)


async def test_top(docker: DockerClient) -> None:
    await started(docker, "aa")
    lines = (await docker.ok("top", "aa")).splitlines()
    assert lines[0].split() == "UID PID PPID C STIME TTY TIME CMD".split()
    assert lines[1].split()[0] == "root"
    assert lines[1].endswith("loop 0.05")
    assert (await docker.ok("top", "aa", "aux")).split()[:2] == ["USER", "PID"]
    assert (await docker.ok("top", "aa", "-o", "pid,args")).split()[:2] == ["PID", "COMMAND"]
    ran = await docker.run("top", "aa", "--forest")
    assert (ran.code, "not understood" in ran.err) == (1, True)
    await docker.ok("kill", "aa")
    assert "is not running" in (await docker.run("top", "aa")).err


async def test_prune_tells_what_went(docker: DockerClient) -> None:
    await docker.ok("run", "-d", "--name", "aa", "busybox", "echo", "x")
    await docker.ok("wait", "aa")
    await started(docker, "bb")
    out = await docker.ok("container", "prune", "-f")
    assert "Deleted Containers:" in out
    assert not out.endswith("Total reclaimed space: 0B\n")
    assert (await docker.ok("ps", "-a", "--format", "{{.Names}}")).split() == ["bb"]


async def test_run_with_rm_leaves_nothing(docker: DockerClient, services: Services) -> None:
    ran = await docker.run("run", "--rm", "--network", "none", "busybox", "echo", "hi")
    assert (ran.code, ran.out, ran.err) == (0, "hi\n", "")
    assert not await services.containers.list()


async def test_restart_does_not_remove(docker: DockerClient) -> None:
    await started(docker, "aa", "--rm")
    assert await docker.ok("restart", "-t", "0", "aa") == "aa\n"
    assert (await inspect(docker, "aa"))["State"]["Running"]
    waiting = await docker.start("wait", "aa")
    assert await docker.ok("kill", "aa") == "aa\n"
    await waiting.wait()
    removed = await docker.run("wait", "aa")
    while removed.code == 0:  # its removal follows its end
        removed = await docker.run("wait", "aa")
    assert "No such container" in removed.err


async def test_run_without_network_option_warns(docker: DockerClient) -> None:
    ran = await docker.run("run", "busybox", "exit", "4")
    assert (ran.code, NO_NETWORK_WARNING in ran.err) == (4, True)


async def test_logs_follow_tail_and_until(docker: DockerClient) -> None:
    await docker.ok("run", "-d", "--name", "aa", "busybox", "seq", "5")
    await docker.ok("wait", "aa")
    assert await docker.ok("logs", "--tail", "2", "aa") == "4\n5\n"
    assert await docker.ok("logs", "-n", "0", "aa") == ""
    assert await docker.ok("logs", "-f", "aa") == "1\n2\n3\n4\n5\n"
    assert await docker.ok("logs", "--since", "1h", "aa") == "1\n2\n3\n4\n5\n"
    assert await docker.ok("logs", "--until", "1h", "aa") == ""


async def test_logs_separate_the_streams(docker: DockerClient) -> None:
    await docker.ok("run", "-d", "--name", "aa", "busybox", "sh", "-c", "echo o; echo e >&2")
    await docker.ok("wait", "aa")
    ran = await docker.run("logs", "aa")
    assert (ran.out, ran.err) == ("o\n", "e\n")


async def test_logs_follow_until_the_end(docker: DockerClient) -> None:
    await docker.ok("run", "-d", "--name", "aa", "busybox", "loop", "0.01", "30")
    assert (await docker.ok("logs", "-f", "aa")).splitlines() == [str(n) for n in range(1, 31)]


async def test_wait_for_the_removal(docker: DockerClient, services: Services) -> None:
    container_id = await started(docker, "aa")
    waiting = await docker.start("wait", "aa")
    await docker.ok("rm", "-f", "aa")
    async with asyncio.timeout(DEADLINE_S):
        out, _ = await waiting.communicate()
    assert out == b"137\n"
    assert container_id not in {each.id for each in await services.containers.list()}


async def test_restart_policy(docker: DockerClient, services: Services) -> None:
    await docker.ok(
        "run", "-d", "--name", "aa", "--restart", "on-failure:1", "busybox", "exit", "2"
    )
    container = await until_state(
        services, (await inspect(docker, "aa"))["Id"], ContainerState.EXITED
    )
    assert (container.exit_code, container.restart_count) == (2, 1)
    assert (await inspect(docker, "aa"))["RestartCount"] == 1
