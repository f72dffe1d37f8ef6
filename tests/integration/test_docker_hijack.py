"""Connections taken over: byte by byte, without the CLI; over TLS with it."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import unix_connect
from websockets.exceptions import InvalidStatus

from app.domain.container import ContainerState
from app.domain.container_config import ContainerConfig
from app.services.bundle import Services
from tests.integration.docker_lab import DockerClient, docker_served, needs_docker_cli
from tests.integration.engine_lab import WHO, launch, shell, until_state
from tests.integration.raw_http import RawHttp, read_head

DEADLINE_S = 10.0
JSON = {"Content-Type": "application/json"}
UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}
RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


@pytest.fixture
async def box(docker: DockerClient, services: Services) -> RawHttp:
    """Raw requests to an engine with a container `box` that sleeps."""
    await launch(services, ContainerConfig(image="busybox", command=("sleep", "1000")), "box")
    return RawHttp(docker.host)


async def make_exec(http: RawHttp, *command: str, **more: bool) -> str:
    body = {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True, **more}
    made = await http.ask("POST", "/containers/box/exec", json.dumps(body).encode(), JSON)
    assert made.status == 201, made
    exec_id: str = json.loads(made.body)["Id"]
    return exec_id


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


async def test_exec_in_every_form_of_answer(box: RawHttp) -> None:
    framed = frame(1, b"out\n") + frame(2, b"err\n")
    for version, upgrade, status, kind in (
        ("v1.45", UPGRADE, 101, MULTIPLEXED),
        ("v1.41", UPGRADE, 101, RAW),
        ("v1.45", {}, 200, RAW),
    ):
        exec_id = await make_exec(box, "sh", "-c", "echo out; echo err >&2")
        reader, writer = await box.open()
        writer.write(
            box.request("POST", f"/{version}/exec/{exec_id}/start", b"{}", {**JSON, **upgrade})
        )
        head = await read_head(reader)
        assert (head.status, head.headers["content-type"]) == (status, kind)
        assert head.headers["api-version"] == "1.45"
        assert head.headers.get("upgrade") == upgrade.get("Upgrade")
        assert "content-length" not in head.headers
        assert "transfer-encoding" not in head.headers
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.read() == framed
        writer.close()


@pytest.mark.parametrize("upgrade", [UPGRADE, {}], ids=["upgrade", "plain"])
async def test_the_body_and_input_may_come_in_any_pieces(
    box: RawHttp, upgrade: dict[str, str]
) -> None:
    exec_id = await make_exec(box, "cat", AttachStdin=True)
    request = box.request(
        "POST", f"/exec/{exec_id}/start", b'{"Detach": false, "Tty": false}', {**JSON, **upgrade}
    )
    reader, writer = await box.open()
    for position in range(0, len(request), 7):
        writer.write(request[position : position + 7])
        await writer.drain()
        await asyncio.sleep(0)
    if upgrade:
        writer.write(b"before the head, ")  # some clients don't wait
    head = await read_head(reader)
    assert head.status == (101 if upgrade else 200)
    writer.write(b"after it")
    writer.write_eof()
    async with asyncio.timeout(DEADLINE_S):
        output = await reader.read()
    pieces = []
    while output:
        length = int.from_bytes(output[4:8], "big")
        pieces.append(output[8 : 8 + length])
        output = output[8 + length :]
    assert b"".join(pieces) == (b"before the head, after it" if upgrade else b"after it")
    writer.close()


async def test_refusals_are_ordinary_answers_and_close(box: RawHttp) -> None:
    for path, status in (
        ("/exec/nope/start", 404),
        ("/containers/nope/attach?stream=1", 404),
    ):
        answer = await box.exchange(box.request("POST", path, b"{}", {**JSON, **UPGRADE}))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"connection: close" in head.lower()
        assert "No such" in json.loads(body)["message"]
    exec_id = await make_exec(box, "true")
    for expected in (101, 409):
        answer = await box.exchange(
            box.request("POST", f"/exec/{exec_id}/start", b"{}", {**JSON, **UPGRADE})
        )
        assert answer.startswith(f"HTTP/1.1 {expected} ".encode())


async def test_exec_is_shown_before_and_after(box: RawHttp) -> None:
    exec_id = await make_exec(box, "sh", "-c", "exit 3")
    before = json.loads((await box.ask("GET", f"/exec/{exec_id}/json")).body)
    assert before.keys() == {
        "ID", "Running", "ExitCode", "ProcessConfig", "OpenStdin", "OpenStderr", "OpenStdout",
        "CanRemove", "ContainerID", "DetachKeys", "Pid",
    }  # fmt: skip
    assert (before["Running"], before["ExitCode"], before["Pid"]) == (False, None, 0)
    assert before["ProcessConfig"] == {
        "tty": False, "entrypoint": "sh", "arguments": ["-c", "exit 3"], "privileged": False,
    }  # fmt: skip
    await box.exchange(box.request("POST", f"/exec/{exec_id}/start", b"{}", {**JSON, **UPGRADE}))
    after = json.loads((await box.ask("GET", f"/exec/{exec_id}/json")).body)
    assert (after["Running"], after["ExitCode"]) == (False, 3)
    assert after["Pid"] > 0


async def test_a_terminal_is_raw_and_its_size_can_be_set(box: RawHttp) -> None:
    exec_id = await make_exec(box, "cat", AttachStdin=True, Tty=True)
    reader, writer = await box.open()
    body = b'{"Tty": true, "ConsoleSize": [40, 120]}'
    writer.write(box.request("POST", f"/exec/{exec_id}/start", body, {**JSON, **UPGRADE}))
    head = await read_head(reader)
    assert head.headers["content-type"] == RAW
    resized = await box.ask("POST", f"/exec/{exec_id}/resize?h=50&w=132")
    assert resized.status == 200
    writer.write(b"typed\n")
    async with asyncio.timeout(DEADLINE_S):
        assert await reader.readexactly(6) == b"typed\n"
    writer.write_eof()  # ends a terminal's session, as with Docker
    async with asyncio.timeout(DEADLINE_S):
        assert await reader.read() == b""
    writer.close()


async def test_who_leaves_an_exec_leaves_it_running(box: RawHttp, services: Services) -> None:
    exec_id = await make_exec(box, "loop", "0.01")
    reader, writer = await box.open()
    writer.write(box.request("POST", f"/exec/{exec_id}/start", b"{}", {**JSON, **UPGRADE}))
    await read_head(reader)
    async with asyncio.timeout(DEADLINE_S):
        await reader.readexactly(20)
    writer.close()
    await asyncio.sleep(0.2)
    assert services.exec.get(exec_id).is_running


# --- attach ------------------------------------------------------------------------------------


async def test_attach_replays_and_goes_on_without_gap_or_repeat(
    docker: DockerClient, services: Services
) -> None:
    http = RawHttp(docker.host)
    container = await launch(services, shell("for i in $(seq 400); do echo $i; sleep 0.002; done"))
    query = "logs=1&stream=1&stdout=1&stderr=1"
    requests = []
    for _ in range(5):
        request = http.request("POST", f"/containers/{container.id}/attach?{query}", b"", UPGRADE)
        requests.append(asyncio.create_task(http.exchange(request)))
        await asyncio.sleep(0.1)
    expected = b"".join(frame(1, f"{number}\n".encode()) for number in range(1, 401))
    for answer in await asyncio.gather(*requests):
        assert answer.partition(b"\r\n\r\n")[2] == expected


async def test_attach_gives_history_alone(docker: DockerClient, services: Services) -> None:
    http = RawHttp(docker.host)
    container = await launch(services, shell("echo out; echo err >&2"))
    await until_state(services, container.id, ContainerState.EXITED)
    request = http.request(
        "POST", f"/containers/{container.id}/attach?logs=1&stdout=1", b"", UPGRADE
    )
    assert (await http.exchange(request)).endswith(b"\r\n\r\n" + frame(1, b"out\n"))


async def test_attach_sees_unfinished_lines(docker: DockerClient, services: Services) -> None:
    http = RawHttp(docker.host)
    config = ContainerConfig(image="busybox", command=("cat",), stdin_open=True)
    container = await launch(services, config)
    path = f"/containers/{container.id}/attach?stream=1&stdin=1&stdout=1"
    reader, writer = await http.open()
    writer.write(http.request("POST", path, b"", UPGRADE))
    await read_head(reader)
    writer.write(b"no newline")
    async with asyncio.timeout(DEADLINE_S):
        assert await reader.readexactly(18) == frame(1, b"no newline")
    late, late_writer = await http.open()
    late_writer.write(http.request("POST", f"{path}&logs=1", b"", UPGRADE))
    await read_head(late)
    async with asyncio.timeout(DEADLINE_S):
        assert await late.readexactly(18) == frame(1, b"no newline")
    for each in (writer, late_writer):
        each.close()


async def test_attach_before_the_start_sees_all_and_wait_comes_last(
    docker: DockerClient, services: Services
) -> None:
    http = RawHttp(docker.host)
    config = ContainerConfig(image="busybox", command=("seq", "200000"), auto_remove=True)
    container = await services.containers.create(config, initiator=WHO)
    reader, writer = await http.open()
    path = f"/containers/{container.id}"
    writer.write(http.request("POST", f"{path}/attach?stream=1&stdout=1", b"", UPGRADE))
    await read_head(reader)
    waiting = asyncio.create_task(http.ask("POST", f"{path}/wait?condition=next-exit"))
    await services.containers.start(container.id, initiator=WHO)
    await asyncio.sleep(0.3)  # nothing is read yet
    assert not waiting.done()
    async with asyncio.timeout(DEADLINE_S):
        output = await reader.read()
    assert output.endswith(b"200000\n")
    assert json.loads((await waiting).body)["StatusCode"] == 0
    writer.close()


async def test_attach_to_a_paused_container_is_refused(box: RawHttp, services: Services) -> None:
    await services.containers.pause("box", initiator=WHO)
    answer = await box.ask("POST", "/containers/box/attach?stream=1")
    assert answer.status == 409
    assert "is paused, unpause the container before attach" in answer.body.decode()
    await services.containers.unpause("box", initiator=WHO)


async def test_websocket(docker: DockerClient, services: Services) -> None:
    path = docker.host.removeprefix("unix://")
    config = ContainerConfig(image="busybox", command=("cat",), stdin_open=True)
    container = await services.containers.create(config, initiator=WHO)
    uri = f"ws://docker/v1.45/containers/{container.id}/attach/ws"
    query = "stream=1&stdin=1&stdout=1&logs=1"
    async with asyncio.timeout(DEADLINE_S), unix_connect(path, f"{uri}?{query}") as socket:
        await services.containers.start(container.id, initiator=WHO)
        await socket.send(b"hello\n")
        assert await socket.recv() == b"hello\n"
        await services.containers.kill(container.id, initiator=WHO)
        assert [message async for message in socket] == []
    with pytest.raises(InvalidStatus) as refused:
        async with unix_connect(path, "ws://docker/containers/nope/attach/ws"):
            pass
    assert refused.value.response.status_code == 404


async def test_detach_keys_leave_a_terminal_running(
    docker: DockerClient, services: Services
) -> None:
    http = RawHttp(docker.host)
    config = ContainerConfig(image="busybox", command=("cat",), stdin_open=True, tty=True)
    container = await launch(services, config)
    path = f"/containers/{container.id}/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-a,d"
    reader, writer = await http.open()
    writer.write(http.request("POST", path, b"", UPGRADE))
    await read_head(reader)
    writer.write(b"typed\n\x01d")
    async with asyncio.timeout(DEADLINE_S):
        output = await reader.read()
    assert output in {b"typed\n", b""}  # leaving does not wait for what comes back
    assert (await services.containers.get(container.id)).state is ContainerState.RUNNING
    writer.close()
    refused = await http.ask("POST", f"/containers/{container.id}/attach?detachKeys=ctrl-")
    assert (refused.status, json.loads(refused.body)["message"]) == (
        400,
        "Invalid detach keys (ctrl-) provided",
    )


# --- TLS ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server's and a client's certificate, and a stranger's."""
    directory = tmp_path_factory.mktemp("certificates")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=directory, check=True, capture_output=True)

    for who in ("ca", "evil"):
        names = ("-subj", f"/CN={who}", "-keyout", f"{who}-key.pem", "-out", f"{who}.pem")
        openssl("req", "-x509", *key, "-days", "2", *names)
    for who in ("server", "alice"):
        (directory / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
        names = ("-subj", f"/CN={who}", "-keyout", f"{who}-key.pem", "-out", f"{who}.csr")
        openssl("req", *key, *names)
        openssl(
            "x509", "-req", "-in", f"{who}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem",
            "-CAcreateserial", "-days", "2", "-extfile", "extensions", "-out", f"{who}.pem",
        )  # fmt: skip
    return directory


@pytest.fixture
async def tls(services: Services, certificates: Path) -> AsyncIterator[DockerClient]:
    """The CLI with alice's certificate."""
    async with docker_served(
        services,
        tls="127.0.0.1:0",
        tls_ca=certificates / "ca.pem",
        tls_cert=certificates / "server.pem",
        tls_key=certificates / "server-key.pem",
    ) as client:
        for name, source in (("ca", "ca"), ("cert", "alice"), ("key", "alice-key")):
            content = (certificates / f"{source}.pem").read_bytes()
            (Path(client.env["HOME"]) / f"{name}.pem").write_bytes(content)
        client.env |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": client.env["HOME"]}
        yield client


@needs_docker_cli
async def test_streams_over_tls_end_one_direction_at_a_time(
    tls: DockerClient, services: Services
) -> None:
    await tls.ok("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    assert await tls.ok("exec", "box", "echo", "hello") == "hello\n"
    lines = "".join(f"{number}\n" for number in range(200_000)).encode()
    assert (await tls.ok("exec", "-i", "box", "wc", "-l", stdin=lines)).strip() == "200000"
    assert (await tls.ok("exec", "-i", "box", "cat", stdin=lines)).encode() == lines
    assert await tls.ok("run", "--rm", "-i", "busybox", "cat", stdin=b"zzz\n") == "zzz\n"
    journal = await services.events.list(limit=100)
    assert "tls:alice" in {event.initiator for event in journal}


@needs_docker_cli
async def test_who_has_no_certificate_of_the_authority_is_refused(
    tls: DockerClient, certificates: Path
) -> None:
    host, port = tls.host.removeprefix("tcp://").split(":")
    plain = await RawHttp(tls.host).exchange(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" not in plain
    for identity in (None, "evil"):
        context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
        if identity:
            context.load_cert_chain(
                certificates / f"{identity}.pem", certificates / f"{identity}-key.pem"
            )
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await _ping(host, int(port), context)


async def _ping(host: str, port: int, context: ssl.SSLContext) -> None:
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        writer.write(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(DEADLINE_S):
            await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()
