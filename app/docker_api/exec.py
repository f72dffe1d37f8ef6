"""/containers/{id}/exec and /exec: further processes in a container."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from app.core.errors import GuestFailed
from app.docker_api.access import ServicesOf
from app.docker_api.bodies import DockerModel, body_of
from app.docker_api.detach_keys import DetachScanner, parse_keys
from app.docker_api.errors import exec_failure
from app.docker_api.hijack import HijackResponse, TakeOver
from app.docker_api.parameters import Number
from app.docker_api.streams import (
    content_type,
    converse,
    encode,
    send_output,
    take_input,
    wanted_streams,
)
from app.docker_api.versions import AskedVersion
from app.domain.exec import ExecConfig, ExecView
from app.domain.log import LogStream
from app.guest.streams import InputStream
from app.services.attachments import OutputPiece
from app.services.exec import ExecProcess

router = APIRouter()


class CreateBody(DockerModel):
    """Docker's ExecConfig."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    tty: bool = False
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    privileged: bool = False
    detach_keys: str = ""


class StartBody(DockerModel):
    """Docker's ExecStartCheck."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None


@router.post("/containers/{reference}/exec", status_code=HTTPStatus.CREATED)
async def create_exec(
    reference: str,
    services: ServicesOf,
    body: Annotated[CreateBody, Depends(body_of(CreateBody))],
) -> dict[str, str]:
    """Describe a process; nothing runs yet."""
    parse_keys(body.detach_keys)
    config = ExecConfig(
        command=body.cmd,
        env=body.env,
        user=body.user,
        working_dir=body.working_dir,
        tty=body.tty,
        stdin=body.attach_stdin,
        stdout=body.attach_stdout,
        stderr=body.attach_stderr,
        privileged=body.privileged,
        detach_keys=body.detach_keys,
    )
    return {"Id": (await services.exec.create(reference, config)).id}


@router.post("/exec/{exec_id}/start")
async def start_exec(
    exec_id: str,
    services: ServicesOf,
    version: AskedVersion,
    body: Annotated[StartBody, Depends(body_of(StartBody))],
) -> Response:
    """Run it: the connection becomes its terminal, or with `Detach` nothing is shown of it."""
    rows, columns = body.console_size or (0, 0)
    if body.detach:
        process = await services.exec.start(exec_id, rows=rows, columns=columns)
        process.output.close()
        if process.stdin is not None:
            process.stdin.write_eof()
        return Response(status_code=HTTPStatus.OK)
    services.exec.get(exec_id)

    async def serve(take_over: TakeOver) -> None:
        view = services.exec.get(exec_id)
        try:
            process = await services.exec.start(exec_id, rows=rows, columns=columns)
        except GuestFailed as error:
            # Docker has given the connection away by then: the text is all that the client sees.
            stream = await take_over(content_type(version, tty=body.tty))
            text = f"{exec_failure(view.config.command, error)}\r\n".encode()
            await stream.write(encode(OutputPiece(LogStream.STDOUT, text), tty=body.tty))
            return
        try:
            await _attend(process, take_over, version, tty=body.tty)
        finally:
            process.output.close()  # it runs on unseen if the client has left

    return HijackResponse(serve)


async def _attend(
    process: ExecProcess, take_over: TakeOver, version: AskedVersion, *, tty: bool
) -> None:
    stream = await take_over(content_type(version, tty=tty))
    config, stdin = process.config, process.stdin
    taking = None
    if stdin is not None:

        async def open_input() -> InputStream:
            return stdin

        keys = DetachScanner(parse_keys(config.detach_keys)) if config.tty else None
        taking = take_input(stream.read, open_input, closes=not config.tty, keys=keys)
    wanted = wanted_streams(stdout=config.stdout, stderr=config.stderr)
    await converse(
        send_output(stream.write, process.output, tty=tty, wanted=wanted),
        taking,
        input_ends_it=config.tty,
        gone=stream.closed,
    )


@router.post("/exec/{exec_id}/resize")
async def resize_exec(exec_id: str, services: ServicesOf, h: Number = 0, w: Number = 0) -> Response:
    """Set the size of its terminal."""
    await services.exec.resize(exec_id, rows=h, columns=w)
    return Response(status_code=HTTPStatus.OK)


@router.get("/exec/{exec_id}/json")
async def inspect_exec(exec_id: str, services: ServicesOf) -> dict[str, Any]:
    """What it is, and its exit code once it has one."""
    return exec_view(services.exec.get(exec_id))


def exec_view(view: ExecView) -> dict[str, Any]:
    """Docker's ExecInspect."""
    config = view.config
    process: dict[str, Any] = {
        "tty": config.tty,
        "entrypoint": config.command[0],
        "arguments": list(config.command[1:]),
        "privileged": config.privileged,
    }
    if config.user:
        process["user"] = config.user
    return {
        "ID": view.id,
        "Running": view.is_running,
        "ExitCode": view.exit_code,
        "ProcessConfig": process,
        "OpenStdin": config.stdin,
        "OpenStderr": config.stderr,
        "OpenStdout": config.stdout,
        "CanRemove": view.exit_code is not None and not view.is_running,
        "ContainerID": view.container_id,
        "DetachKeys": config.detach_keys,
        "Pid": view.pid,
    }
