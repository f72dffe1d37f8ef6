"""/networks: the one there is, Docker's `none`; others come with a network card."""

import hashlib
from typing import Any

from fastapi import APIRouter

from app.core.errors import NotFound, PermissionDenied, Unsupported
from app.docker_api.access import ServicesOf
from app.docker_api.container_view import runs
from app.docker_api.parameters import Filters, parse_filters
from app.docker_api.times import iso_time

router = APIRouter(prefix="/networks")

NAME = "none"
NETWORK_ID = hashlib.sha256(b"slipway network none").hexdigest()
FILTERS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
PRUNE_FILTERS = frozenset({"label", "label!", "until"})

_REFUSED = Unsupported(
    "Networks are not available in this release: containers have no network card",
    advice="Use network mode none",
)


def network_view(containers: dict[str, Any]) -> dict[str, Any]:
    """The network of a loopback interface and nothing else."""
    return {
        "Name": NAME,
        "Id": NETWORK_ID,
        "Created": iso_time(0),
        "Scope": "local",
        "Driver": "null",
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": None},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": containers,
        "Options": {},
        "Labels": {},
    }


@router.get("")
async def list_networks(filters: str = "") -> list[dict[str, Any]]:
    """One, unless a filter excludes it."""
    wanted = parse_filters(filters, FILTERS)
    return [network_view({})] if _fits(wanted) else []


def _fits(filters: Filters) -> bool:
    own = {"driver": "null", "scope": "local", "type": "builtin"}
    for name, values in filters.items():
        match name:
            case "name":
                fits = any(value in NAME for value in values)
            case "id":
                fits = any(NETWORK_ID.startswith(value) for value in values)
            case "label":
                fits = False
            case "dangling":
                fits = not {"1", "true"} & set(values)
            case _:
                fits = own[name] in values
        if not fits:
            return False
    return True


@router.post("/create")
async def create_network() -> None:
    """None can be made."""
    raise _REFUSED


@router.post("/prune")
async def prune_networks(filters: str = "") -> dict[str, Any]:
    """None can go."""
    parse_filters(filters, PRUNE_FILTERS)
    return {"NetworksDeleted": None}


@router.get("/{reference}")
async def inspect_network(reference: str, services: ServicesOf) -> dict[str, Any]:
    """The network, with the containers that run."""
    _require(reference)
    members = {
        each.id: {
            "Name": each.name,
            "EndpointID": "",
            "MacAddress": "",
            "IPv4Address": "",
            "IPv6Address": "",
        }
        for each in await services.containers.list()
        if runs(each)
    }
    return network_view(members)


@router.delete("/{reference}")
async def remove_network(reference: str) -> None:
    """Docker's own stay."""
    _require(reference)
    raise PermissionDenied(f"{NAME} is a pre-defined network and cannot be removed")


@router.post("/{reference}/connect")
async def connect_network(reference: str) -> None:
    """There is nothing to connect to."""
    _require(reference)
    raise _REFUSED


@router.post("/{reference}/disconnect")
async def disconnect_network(reference: str) -> None:
    """A container can't leave it."""
    _require(reference)
    raise _REFUSED


def _require(reference: str) -> None:
    if reference != NAME and not (reference and NETWORK_ID.startswith(reference)):
        raise NotFound(f"network {reference} not found")
