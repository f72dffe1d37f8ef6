"""Fixtures: each agent in turn, and hosts that speak with it."""

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from app.guest.fake import FakeGuest
from tests.contract.agent.host import (
    AgentUnderTest,
    Connect,
    RawHost,
    build_native_agent,
    fake_agent_of,
    native_agent,
)


@pytest.fixture(scope="session")
def native_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_native_agent(tmp_path_factory)


@pytest.fixture(params=["fake", "native"])
async def agent(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[AgentUnderTest]:
    if request.param == "fake":
        async with fake_agent_of(FakeGuest()) as made:
            yield made
    else:
        async with native_agent(request.getfixturevalue("native_binary"), tmp_path) as made:
            yield made


@pytest.fixture
async def connect(agent: AgentUnderTest) -> AsyncGenerator[Connect]:
    """Open a connection without HELLO; all are closed at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_host() -> RawHost:
            host = RawHost(*await agent.connect())
            stack.push_async_callback(host.close)
            return host

        yield open_host


@pytest.fixture
async def host(connect: Connect) -> RawHost:
    """A connection that has said HELLO."""
    opened = await connect()
    await opened.say_hello()
    return opened
