"""Fixture: guests that take their time over the end of a container."""

import asyncio

import pytest

from app.guest.protocol import Op
from tests.integration.engine_lab import EngineLab


@pytest.fixture
def gate(lab: EngineLab) -> asyncio.Event:
    """Until it is set no guest answers DELETE: it is still syncing and unmounting."""
    return lab.gates.setdefault(Op.DELETE, asyncio.Event())
