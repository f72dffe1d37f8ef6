"""How `slipway stop --all` reaches containers: through the engine that runs, or as an engine."""

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

from app.core.errors import AlreadyInState, NotFound, SlipwayError, Unavailable
from app.domain.container import ContainerState
from app.settings import Settings
from app.storage.data_directory import EngineAddress

REQUEST_TIMEOUT_S = 600.0  # a stop may use its whole grace, one after the other in a busy guest
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


def _words_of(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["detail"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"HTTP status {error.code}"


async def stop_by_engine(
    settings: Settings, engine: EngineAddress, *, grace_s: int | None
) -> Outcomes:
    """Stop what runs through the engine's REST, all at once.

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
        finally:
            await accounts.revoke_token(token.id)
    return dict(zip(names, faults, strict=True))


async def stop_by_ourselves(settings: Settings, *, grace_s: int | None) -> Outcomes:
    """Be the engine for a moment: adopt what runs, take its last output, stop it.

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

    machine = await prepare_machine(settings, say=print)
    async with run_engine(settings, machine) as services:
        everything = await services.containers.list()
        listed = [each for each in everything if each.state not in AT_REST]
        faults = await asyncio.gather(*(stop(each.id) for each in listed))
    return dict(zip([each.name for each in listed], faults, strict=True))
