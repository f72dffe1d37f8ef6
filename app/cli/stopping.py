"""How `slipway stop --all` reaches containers: through the engine that runs, or as an engine."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Collection
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from app.core.errors import AlreadyInState, DeadlineExceeded, NotFound, SlipwayError, Unavailable
from app.domain.container import ContainerState
from app.settings import Settings
from app.storage.data_directory import EngineAddress

REQUEST_TIMEOUT_S = 600.0  # a stop may use its whole grace, one after the other in a busy guest
GONE_TIMEOUT_S = 60.0
POLL_INTERVAL_S = 0.1
AT_REST = frozenset({ContainerState.CREATED, ContainerState.EXITED, ContainerState.DEAD})
INITIATOR = "slipway stop"

Outcomes = dict[str, str]  # container's name -> why it did not stop, "" if it did


class EngineClient:
    """REST of the engine on this machine; blocking."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token

    def request(self, method: str, path: str) -> Any:  # noqa: ANN401  (a JSON document)
        """Send one request; returns the answer's document.

        Raises:
            SlipwayError: The engine's own words, if it refused.
            Unavailable: It does not answer.
        """
        request = urllib.request.Request(  # noqa: S310  (http to this machine's engine)
            f"{self._url}/api/v1{path}",
            method=method,
            headers={"Authorization": f"Bearer {self._token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as answer:  # noqa: S310
                return json.loads(answer.read())
        except urllib.error.HTTPError as exc:
            raise SlipwayError(_words_of(exc)) from exc
        except (OSError, ValueError) as exc:
            raise Unavailable(
                f"The engine at {self._url} does not answer: {exc}",
                advice="Look at its output; if it hangs, end its process and repeat.",
            ) from exc

    def stop(self, container_id: str, grace_s: int | None) -> str:
        """Stop one container; returns why it did not, or ""."""
        query = "" if grace_s is None else f"?timeout_s={grace_s}"
        try:
            self.request("POST", f"/containers/{quote(container_id)}/stop{query}")
        except SlipwayError as exc:
            return exc.message
        return ""

    def wait_until_gone(self, container_ids: Collection[str]) -> None:
        """Wait until no VM of stopped containers is left; each ends by its own deadlines.

        Raises:
            SlipwayError: The engine does not answer, or a VM is still there after GONE_TIMEOUT_S.
        """
        deadline_s = time.monotonic() + GONE_TIMEOUT_S
        while any(vm["container_id"] in container_ids for vm in self.request("GET", "/vms")):
            if time.monotonic() > deadline_s:
                raise DeadlineExceeded(
                    "The containers have stopped, but VMs of them are still there.",
                    advice="Look at the engine's output.",
                )
            time.sleep(POLL_INTERVAL_S)


def _words_of(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["detail"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"HTTP status {error.code}"


async def stop_by_engine(
    settings: Settings, engine: EngineAddress, *, grace_s: int | None
) -> Outcomes:
    """Stop what runs through the engine's REST, all at once; their VMs are gone then.

    Whoever may write the data directory may make a token; this one lives for the call.

    Raises:
        Unavailable: The engine does not answer.
    """
    from app.cli.accounts import open_accounts

    if not engine.url:
        raise Unavailable(
            f"An engine (process {engine.pid}) holds {settings.data_dir} and does not serve yet.",
            advice="Wait until it does, then repeat.",
        )
    async with open_accounts(settings) as accounts:
        token = await accounts.create_token(INITIATOR)
        try:
            client = EngineClient(engine.url, token.secret)
            everything = await asyncio.to_thread(client.request, "GET", "/containers")
            listed = [each for each in everything if each["state"] not in AT_REST]
            names = [str(each["name"]) for each in listed]
            faults = await asyncio.gather(
                *(asyncio.to_thread(client.stop, each["id"], grace_s) for each in listed)
            )
            stopped = {
                str(each["id"]) for each, fault in zip(listed, faults, strict=True) if not fault
            }
            await asyncio.to_thread(client.wait_until_gone, stopped)
        finally:
            await accounts.revoke_token(token.id)
    return dict(zip(names, faults, strict=True))


async def stop_by_ourselves(settings: Settings, *, grace_s: int | None) -> Outcomes:
    """Be the engine for a moment: adopt what runs, take its last output, stop it; no VM is left.

    The caller holds the data directory's lock.
    """
    from app.engine import run_engine
    from app.main import prepare_machine

    async def stop(container_id: str) -> str:
        try:
            await services.containers.stop(container_id, timeout_s=grace_s, initiator=INITIATOR)
        except (AlreadyInState, NotFound):
            return ""
        except SlipwayError as exc:
            return exc.message
        return ""

    async def until_gone(container_id: str) -> None:
        with suppress(NotFound):  # removed with its end
            await services.containers.until_gone(container_id)

    machine = await prepare_machine(settings, say=print)
    nothing_new = settings.model_copy(update={"templates": False, "pool_size": "0"})
    async with run_engine(nothing_new, machine) as services:
        everything = await services.containers.list()
        listed = [each for each in everything if each.state not in AT_REST]
        faults = await asyncio.gather(*(stop(each.id) for each in listed))
        stopped = [each.id for each, fault in zip(listed, faults, strict=True) if not fault]
        at_rest = [each.id for each in everything if each.state in AT_REST]
        await asyncio.gather(*(until_gone(each) for each in (*stopped, *at_rest)))
    return dict(zip([each.name for each in listed], faults, strict=True))
