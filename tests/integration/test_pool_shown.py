"""What REST and metrics tell of the pool, over the whole application and the fake machine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from app.main import create_app
from app.services.bundle import Services
from tests.integration.engine_lab import DEADLINE_S, EngineLab
from tests.integration.serving import served

WAITING = 2


@asynccontextmanager
async def client_of(lab: EngineLab) -> AsyncIterator[httpx2.AsyncClient]:
    """With a token."""
    tokens: list[str] = []

    async def on_ready(services: Services) -> None:
        tokens.append((await services.accounts.create_token("script")).secret)

    app = create_app(lab.settings, lab.runner(), on_ready=on_ready)
    async with (
        served(app, lifespan="on") as url,
        httpx2.AsyncClient(base_url=url, timeout=DEADLINE_S) as client,
    ):
        client.headers["Authorization"] = f"Bearer {tokens[0]}"
        yield client


async def until_measured(client: httpx2.AsyncClient) -> dict[str, Any]:
    """The pool once it is full and has been measured."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            pool: dict[str, Any] = (await client.get("/api/v1/hosts/local")).json()["pool"]
            if pool["waiting"] == WAITING and pool["resident_bytes"]:
                return pool
            await asyncio.sleep(0.02)


async def pool_metrics(client: httpx2.AsyncClient) -> dict[str, float]:
    lines = (await client.get("/metrics")).text.splitlines()
    found = (line.split() for line in lines if line.startswith("slipway_pool_"))
    return {name: float(value) for name, value in found}


async def test_pool_is_told_and_its_vms_are_no_containers(lab: EngineLab) -> None:
    lab.can_clone = True
    lab.settings = lab.settings.model_copy(update={"pool_size": str(WAITING)})
    async with client_of(lab) as client:
        pool = await until_measured(client)
        assert (pool["size"], pool["reason"]) == (WAITING, "")
        assert (await client.get("/api/v1/vms")).json() == []
        metrics = await pool_metrics(client)
        assert metrics.pop("slipway_pool_resident_bytes") > 0
        assert metrics == {"slipway_pool_waiting": WAITING, "slipway_pool_size": WAITING}


async def test_pool_that_is_off_is_null(lab: EngineLab) -> None:
    lab.can_clone = True
    lab.settings = lab.settings.model_copy(update={"pool_size": "0"})
    async with client_of(lab) as client:
        assert (await client.get("/api/v1/hosts/local")).json()["pool"] is None
        assert await pool_metrics(client) == {}
