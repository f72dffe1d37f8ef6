"""Health checks over the Docker API, by the real docker CLI over the fake machine."""

import json
from typing import Any

from app.domain.container import Container, ContainerState
from app.services.bundle import Services
from tests.integration.docker_lab import DockerClient, needs_docker_cli
from tests.integration.engine_lab import until, until_state

pytestmark = needs_docker_cli

FAST = ("--network", "none", "--health-interval", "20ms", "--health-retries", "2")


async def health(docker: DockerClient, name: str) -> dict[str, Any]:
    found = json.loads(await docker.ok("inspect", name))[0]["State"]["Health"]
    assert isinstance(found, dict)
    return found


async def test_healthy(docker: DockerClient, services: Services) -> None:
    container_id = (
        await docker.ok("run", "-d", "--health-cmd", "echo fine", *FAST, "busybox", "loop")
    ).strip()
    container = await until(
        services, container_id, lambda each: bool(each.health and each.health.status == "healthy")
    )
    assert container.health is not None
    found = await health(docker, container_id)
    assert (found["Status"], found["FailingStreak"]) == ("healthy", 0)
    assert found["Log"][0]["Output"] == "fine\n"
    assert found["Log"][0]["ExitCode"] == 0
    assert "(healthy)" in await docker.ok("ps", "--format", "{{.Status}}")
    listed = await docker.ok("ps", "-q", "--no-trunc", "--filter", "health=healthy")
    assert listed.strip() == container_id
    actions = [each.action for each in await services.events.list(actor_id=container_id)]
    assert "health_status: healthy" in actions


async def test_unhealthy_and_at_most_five_results(docker: DockerClient, services: Services) -> None:
    container_id = (
        await docker.ok("run", "-d", "--health-cmd", "exit 3", *FAST, "busybox", "loop")
    ).strip()
    await until(
        services, container_id, lambda each: bool(each.health and each.health.failing_streak > 6)
    )
    found = await health(docker, container_id)
    assert found["Status"] == "unhealthy"
    assert [probe["ExitCode"] for probe in found["Log"]] == [3] * 5
    await docker.ok("stop", "-t", "0", container_id)
    assert (await health(docker, container_id))["Status"] == "unhealthy"


async def test_a_check_that_takes_too_long_fails(docker: DockerClient, services: Services) -> None:
    container_id = (
        await docker.ok(
            "run", "-d", "--health-cmd", "sleep 60", "--health-timeout", "10ms", *FAST,
            "busybox", "loop",
        )
    ).strip()  # fmt: skip
    await until(
        services, container_id, lambda each: bool(each.health and each.health.failing_streak)
    )
    found = await health(docker, container_id)
    assert found["Log"][0]["ExitCode"] == -1
    assert "exceeded timeout" in found["Log"][0]["Output"]


async def test_a_container_begins_as_starting(docker: DockerClient) -> None:
    await docker.ok(
        "run", "-d", "--name", "aa", "--network", "none", "--health-cmd", "true", "busybox", "loop"
    )
    assert await health(docker, "aa") == {"Status": "starting", "FailingStreak": 0, "Log": []}
    assert "(health: starting)" in await docker.ok("ps", "--format", "{{.Status}}")


async def test_no_healthcheck_switches_it_off(docker: DockerClient) -> None:
    await docker.ok(
        "run", "-d", "--name", "aa", "--network", "none", "--no-healthcheck", "busybox", "loop"
    )
    state = json.loads(await docker.ok("inspect", "aa"))[0]["State"]
    assert "Health" not in state


async def test_a_pause_rests_the_checks(docker: DockerClient, services: Services) -> None:
    container_id = (
        await docker.ok("run", "-d", "--health-cmd", "true", *FAST, "busybox", "loop", "0.01")
    ).strip()
    await until(
        services, container_id, lambda each: bool(each.health and each.health.status == "healthy")
    )
    await docker.ok("pause", container_id)
    paused = await until_state(services, container_id, ContainerState.PAUSED)
    await docker.ok("unpause", container_id)
    assert paused.health is not None
    seen_ns = paused.health.probes[-1].started_at_ns

    def probed_again(container: Container) -> bool:
        found = container.health
        return bool(found and found.probes and found.probes[-1].started_at_ns > seen_ns)

    await until(services, container_id, probed_again)
