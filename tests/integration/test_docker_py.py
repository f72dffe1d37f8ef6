"""docker-py over the Docker API of an engine on the fake machine."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import pytest

docker_py = pytest.importorskip("docker")

from app.services.bundle import Services  # noqa: E402
from tests.integration.docker_lab import docker_served  # noqa: E402

APIError, ContainerError = docker_py.errors.APIError, docker_py.errors.ContainerError
ImageNotFound, NotFound = docker_py.errors.ImageNotFound, docker_py.errors.NotFound
T = TypeVar("T")
DEADLINE_S = 15


class InThread:
    """Runs docker-py, which blocks, beside the engine's loop."""

    def __init__(self, host: str) -> None:
        self.host = host

    async def __call__(self, work: Callable[[Any], T]) -> T:
        """Give `work` a client; its result or error is the caller's."""

        def run() -> T:
            client = docker_py.DockerClient(base_url=self.host, version="1.45", timeout=DEADLINE_S)
            try:
                return work(client)
            finally:
                client.close()

        return await asyncio.to_thread(run)


@pytest.fixture
async def py(services: Services) -> AsyncIterator[InThread]:
    """docker-py on the engine's unix socket."""
    async with docker_served(services) as client:
        yield InThread(client.host)


async def test_run_gives_the_output(py: InThread) -> None:
    def work(client: Any) -> None:
        assert client.containers.run("busybox", "echo hi", network_mode="none") == b"hi\n"
        with pytest.raises(ContainerError) as failed:
            client.containers.run("busybox", ["sh", "-c", "echo oops >&2; exit 3"], remove=True)
        assert failed.value.exit_status == 3

    await py(work)


async def test_a_containers_life(py: InThread) -> None:
    def work(client: Any) -> None:
        made = client.containers.create(
            "busybox",
            ["loop", "0.02"],
            name="one",
            labels={"team": "web"},
            environment={"A": "b"},
            mem_limit="64m",
            restart_policy={"Name": "on-failure", "MaximumRetryCount": 1},
        )
        assert made.status == "created"
        made.start()
        made.reload()
        assert (made.status, made.labels) == ("running", {"team": "web"})
        assert made.attrs["HostConfig"]["Memory"] == 64 << 20
        assert client.containers.list(filters={"label": "team=web"}) == [made]
        assert made.top()["Titles"][:2] == ["UID", "PID"]
        assert made.stats(stream=False)["id"] == made.id
        made.pause()
        made.unpause()
        made.rename("two")
        made.update(mem_limit="80m", memswap_limit="160m")
        made.stop(timeout=0)
        assert made.wait()["StatusCode"] == 137
        made.restart(timeout=0)
        made.kill()
        made.remove()
        with pytest.raises(NotFound):
            client.containers.get("two")

    await py(work)


async def test_logs_as_a_stream(py: InThread) -> None:
    def work(client: Any) -> None:
        container = client.containers.run(
            "busybox", ["loop", "0.01", "5"], detach=True, network_mode="none"
        )
        lines = b"".join(container.logs(stream=True, follow=True)).split()
        assert lines == [b"1", b"2", b"3", b"4", b"5"]
        assert container.logs(tail=1) == b"5\n"
        assert container.wait(condition="not-running")["StatusCode"] == 0

    await py(work)


async def test_wait_for_the_next_exit(py: InThread) -> None:
    def work(client: Any) -> None:
        container = client.containers.create("busybox", ["exit", "4"])
        answers: list[Any] = []
        waiter = threading.Thread(
            target=lambda: answers.append(container.wait(condition="next-exit"))
        )
        waiter.start()
        while waiter.is_alive():  # the wait may begin after an exit: then there is a next one
            container.start()
            waiter.join(0.2)
        assert answers[0]["StatusCode"] == 4

    await py(work)


async def test_statistics_as_a_stream(py: InThread) -> None:
    def work(client: Any) -> None:
        container = client.containers.run("busybox", ["loop"], detach=True)
        stream = container.stats(stream=True, decode=True)
        first, second = next(stream), next(stream)
        assert first["id"] == second["id"] == container.id
        assert second["read"] > first["read"]
        stream.close()
        container.kill()

    await py(work)


async def test_images(py: InThread) -> None:
    def work(client: Any) -> None:
        image = client.images.get("busybox")
        assert image.tags == ["busybox:latest"]
        assert image.tag("team/app", tag="v1")
        assert [each.id for each in client.images.list(name="team/app")] == [image.id]
        archive = b"".join(image.save(named=True))
        client.images.remove("team/app:v1")
        client.images.remove("busybox")
        with pytest.raises(ImageNotFound):
            client.images.get("busybox")
        loaded = client.images.load(archive)
        assert [each.id for each in loaded] == [image.id]
        assert image.history()[0]["Id"] == image.id
        assert client.images.prune()["SpaceReclaimed"] == 0

    await py(work)


async def test_errors_have_dockers_texts(py: InThread) -> None:
    def work(client: Any) -> None:
        container = client.containers.run("busybox", ["loop"], detach=True, name="one")
        with pytest.raises(APIError, match="stop the container before removing"):
            container.remove()
        with pytest.raises(APIError, match="Conflict"):
            client.containers.create("busybox", name="one")
        with pytest.raises(ImageNotFound, match="No such image: nope:latest"):
            client.api.create_container("nope", "true")
        container.remove(force=True)
        with pytest.raises(APIError, match="volumes and bind mounts are not available"):
            client.containers.create("busybox", volumes=["/tmp:/tmp"])
        with pytest.raises(APIError, match="namespace mode host refused"):
            client.containers.create("busybox", pid_mode="host")

    await py(work)


async def test_prune(py: InThread) -> None:
    def work(client: Any) -> None:
        container = client.containers.run("busybox", ["true"], detach=True)
        container.wait()
        pruned = client.containers.prune()
        assert pruned["ContainersDeleted"] == [container.id]
        assert pruned["SpaceReclaimed"] > 0

    await py(work)
