"""Schemathesis over the OpenAPI document: never a 5xx, and answers as declared."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.types import Receive, Scope, Send

from app.api.app import create_api
from app.guest.fake_programs import PROGRAMS
from tests.integration.engine_lab import WHO, EngineLab, shell
from tests.integration.serving import served

START_DEADLINE_S = 30.0
EXAMPLES_PER_OPERATION = 25
CALL_TIMEOUT_S = 10.0
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]

Endpoint = tuple[str, str]
AnyOperation = APIOperation[Any, Any, Any, Any]


@schemathesis.serializer("application/x-tar", "application/octet-stream")
def _bytes_as_they_are(_context: object, value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


class _Background:
    """An engine with REST in a thread of its own, since schemathesis calls synchronously."""

    def __init__(self, root: Path, prepared: Path) -> None:
        self._root = root
        self._prepared = prepared
        self._ready: Queue[Endpoint | BaseException] = Queue()
        self._thread = threading.Thread(target=self._main, name="engine-under-fuzz")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> Endpoint:
        self._thread.start()
        answer = self._ready.get(timeout=START_DEADLINE_S)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def stop(self) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_DEADLINE_S)
        assert not self._thread.is_alive()

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._ready.put(error)
            raise

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        api = create_api("test")
        lab = EngineLab(self._root, self._prepared)
        lab.programs["sh"] = PROGRAMS["trap"]  # obeys SIGTERM, whatever grace a case asks for
        async with lab, lab.engine() as services:
            await services.containers.create(shell("exit 0"), name="one", initiator=WHO)
            token = (await services.accounts.create_token("fuzz")).secret

            async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
                scope["state"] = {"services": services}
                await api(scope, receive, send)

            async with served(with_state) as url:
                self._ready.put((url, token))
                await self._stop.wait()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, prepared_data_dir: Path) -> Iterator[Endpoint]:
    """A running engine: its URL, and a token to call it by."""
    background = _Background(tmp_path_factory.mktemp("fuzz"), prepared_data_dir)
    try:
        yield background.start()
    finally:
        background.stop()


# Schemathesis' own pytest plugin does not work with pytest 9, so operations are listed here.
SCHEMA = schemathesis.openapi.from_dict(create_api("test").openapi())
NEVER_ENDING = "/events/stream"  # test_api follows it
LEAVES_THE_MACHINE = "/images/pull"  # any name is asked for at docker.io; test_api pulls
OPERATIONS = [
    result.ok()
    for result in SCHEMA.get_all_operations()
    if isinstance(result, Ok) and result.ok().path not in {NEVER_ENDING, LEAVES_THE_MACHINE}
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("operation", OPERATIONS, ids=[each.label for each in OPERATIONS])
def test_any_request_gets_a_declared_answer(
    operation: APIOperation[Any, Any, Any, Any], engine: Endpoint
) -> None:
    url, token = engine

    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES_PER_OPERATION,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],  # shrinking would repeat slow calls for minutes
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def call(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=CALL_TIMEOUT_S,
            checks=CHECKS,
        )

    call()
