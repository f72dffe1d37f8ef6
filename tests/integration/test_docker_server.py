"""The Docker API's servers and what every request goes through, with raw requests and the CLI."""

import asyncio
import json
import socket
import time
from pathlib import Path

import pytest

from app.core.errors import Conflict, InvalidArgument
from app.docker_api.server import SHUTDOWN_GRACE_S, DockerListening, DockerSockets
from app.docker_api.sockets import UnixListener, bind_common
from app.services.bundle import Services
from tests.integration.docker_lab import DockerClient, docker_served, needs_docker_cli
from tests.integration.engine_lab import DEADLINE_S, EngineLab
from tests.integration.raw_http import RawHttp

JSON = "application/json"


async def test_ping_and_its_headers(docker: DockerClient) -> None:
    http = RawHttp(docker.host)
    answer = await http.ask("GET", "/_ping")
    assert (answer.status, answer.body) == (200, b"OK")
    assert answer.headers["api-version"] == "1.45"
    assert answer.headers["ostype"] == "linux"
    assert answer.headers["builder-version"] == "1"
    assert answer.headers["swarm"] == "inactive"
    assert answer.headers["server"].startswith("Docker/")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    head = await http.ask("HEAD", "/v1.30/_ping")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["api-version"] == "1.45"


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        (
            "/v1.99/version",
            400,
            "client version 1.99 is too new. Maximum supported API version is 1.45",
        ),
        (
            "/v1.12/version",
            400,
            "client version 1.12 is too old. Minimum supported API version is 1.24, "
            "please upgrade your client to a newer version",
        ),
        ("/v1.45/nothing", 404, "page not found"),
        ("/vx/version", 404, "page not found"),
        ("/v1.45/swarm", 503, "This node is not a swarm manager. "),
        ("/services/x/logs", 503, "This node is not a swarm manager. "),
        ("/plugins/a/b/json", 404, 'plugin "a/b" not found'),
    ],
)
async def test_refusals(docker: DockerClient, path: str, status: int, text: str) -> None:
    answer = await RawHttp(docker.host).ask("GET", path)
    assert answer.status == status
    assert answer.headers["content-type"] == JSON
    assert answer.headers["api-version"] == "1.45"
    assert json.loads(answer.body)["message"].startswith(text)


async def test_a_wrong_method_is_no_page(docker: DockerClient) -> None:
    answer = await RawHttp(docker.host).ask("DELETE", "/version")
    assert (answer.status, json.loads(answer.body)) == (404, {"message": "page not found"})


async def test_leaving_a_swarm_and_buildkit_say_what_is_so(docker: DockerClient) -> None:
    http = RawHttp(docker.host)
    left = await http.ask("POST", "/v1.45/swarm/leave?force=1")
    assert (left.status, json.loads(left.body)["message"]) == (
        503,
        "This node is not part of a swarm",
    )
    upgrade = {"Connection": "Upgrade", "Upgrade": "h2c"}
    for path in ("/v1.45/session", "/v1.45/grpc"):
        refused = await http.ask("POST", path, headers=upgrade)
        assert refused.status == 501
        assert "DOCKER_BUILDKIT=0" in json.loads(refused.body)["message"]
        assert "docker buildx create --driver docker-container" in refused.body.decode()


async def test_bytes_that_are_no_http_are_refused(docker: DockerClient) -> None:
    answer = await RawHttp(docker.host).exchange(b"\x16\x03\x01 hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


@needs_docker_cli
async def test_the_cli_knows_the_engine(docker: DockerClient) -> None:
    version = json.loads(await docker.ok("version", "--format", "{{json .}}"))
    assert version["Server"]["ApiVersion"] == "1.45"
    assert version["Client"]["ApiVersion"] == "1.45"
    info = json.loads(await docker.ok("info", "--format", "{{json .}}"))
    assert (info["Containers"], info["Images"], info["OSType"]) == (0, 1, "linux")
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    assert await docker.ok("plugin", "ls", "-q") == ""
    nodes = await docker.run("node", "ls")
    assert "This node is not a swarm manager" in nodes.err


# --- sockets -----------------------------------------------------------------------------------


def test_socket_is_for_owner_and_group_and_goes_with_its_listener(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    listener = UnixListener.bind(path)
    assert path.stat().st_mode & 0o777 == 0o660
    assert [each.name for each in tmp_path.iterdir()] == ["docker.sock"]
    with pytest.raises(Conflict):
        UnixListener.bind(path)
    listener.close()
    listener.close()
    assert not path.exists()


def test_a_left_socket_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    UnixListener.bind(path).close()
    path.write_text("precious")
    with pytest.raises(Conflict):
        UnixListener.bind(path)
    assert path.read_text() == "precious"


def test_a_successor_s_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    first = UnixListener.bind(path)
    first.socket.close()
    second = UnixListener.bind(path)
    first.close()
    assert path.exists()
    second.close()


def test_a_deep_directory_is_no_hindrance(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    listener = UnixListener.bind(deep / "docker.sock")
    assert (deep / "docker.sock").is_socket()
    listener.close()


def test_the_common_socket_is_the_first_engine_s(tmp_path: Path) -> None:
    path = tmp_path / "run" / "docker.sock"
    first = bind_common(path)
    assert first is not None
    assert bind_common(path) is None
    first.close()
    second = bind_common(path)
    assert second is not None
    second.close()


def test_an_unknown_group_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no group"):
        UnixListener.bind(tmp_path / "docker.sock", group="no-such-group")


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:0", "localhost:0", "[::]:0", "8080"])
def test_plain_tcp_is_for_loopback_addresses_only(tmp_path: Path, address: str) -> None:
    with pytest.raises(InvalidArgument):
        DockerSockets.bind(DockerListening(data_dir=tmp_path, tcp=address))
    assert list(tmp_path.iterdir()) == []


def test_tls_without_certificates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="SLIPWAY_DOCKER_TLS_CA"):
        DockerSockets.bind(DockerListening(data_dir=tmp_path, tls="127.0.0.1:0"))


async def test_plain_tcp_refuses_browsers(services: Services) -> None:
    async with docker_served(services, tcp="127.0.0.1:0") as docker:
        http = RawHttp(docker.host)
        local = http.address
        for headers, status in (
            ({}, 200),
            ({"Host": "localhost:1"}, 200),
            ({"Host": "[::1]:1"}, 200),
            ({"Origin": f"http://{local}"}, 200),
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Host": "rebound.example:2375"}, 403),
            ({"Host": "127.0.0.1.evil.example"}, 403),
        ):
            answer = await http.ask("GET", "/_ping", headers=headers)
            assert answer.status == status, headers


@needs_docker_cli
async def test_the_end_closes_streams_at_once(services: Services) -> None:
    async with docker_served(services) as docker:
        await docker.ok("run", "-d", "--name", "box", "busybox", "sleep", "1000")
        events = await docker.start("events")
        attached = await docker.start("attach", "--no-stdin", "box")
        executing = await docker.start("exec", "-i", "box", "cat")
        assert executing.stdin is not None
        assert executing.stdout is not None
        executing.stdin.write(b"there\n")
        async with asyncio.timeout(DEADLINE_S):
            assert await executing.stdout.readline() == b"there\n"
        began_s = time.monotonic()
    assert time.monotonic() - began_s < SHUTDOWN_GRACE_S + 1
    async with asyncio.timeout(DEADLINE_S):
        for client in (events, attached, executing):
            await client.communicate()


async def test_an_open_port_is_told(lab: EngineLab) -> None:
    lab.settings = lab.settings.model_copy(update={"docker_tcp": "127.0.0.1:2375"})
    async with lab.engine() as services, docker_served(services) as docker:
        info = json.loads((await RawHttp(docker.host).ask("GET", "/info")).body)
        assert "127.0.0.1:2375" in info["Warnings"][0]
