"""Fixtures of the guest's host side."""

from collections.abc import AsyncGenerator

import pytest

from app.guest.channel import GuestChannel
from app.guest.fake import FakeGuest
from tests.unit.guest.channel_lab import (
    DEADLINE_S,
    OUTPUT,
    ScriptedGuest,
    Wire,
    known_stream,
    running,
)


@pytest.fixture
async def guest() -> AsyncGenerator[FakeGuest]:
    made = FakeGuest()
    yield made
    await made.close()


@pytest.fixture
async def wire(guest: FakeGuest) -> Wire:
    return Wire(guest)


@pytest.fixture
async def channel(wire: Wire) -> AsyncGenerator[GuestChannel]:
    async with running(wire.connect) as made:
        await made.connected(DEADLINE_S)
        yield made


@pytest.fixture
async def scripted() -> AsyncGenerator[ScriptedGuest]:
    made = ScriptedGuest(hello=[known_stream(OUTPUT)])
    yield made
    await made.close()
