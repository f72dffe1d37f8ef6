"""The host: what it is, what runs guest code on it and why, and what is left of it."""

import time
from dataclasses import dataclass
from typing import ClassVar

from fastapi import APIRouter, Request, Response

from app.web.containers import latest_samples
from app.web.errors import WebRoute
from app.web.overview import HostLine, host_line
from app.web.sessions import SignedIn, services_of
from app.web.shell import Shell, build_shell
from app.web.templating import render

router = APIRouter(route_class=WebRoute)


@dataclass(frozen=True)
class HostPage:
    """Context of the page."""

    template: ClassVar[str] = "host.html"
    shell: Shell
    host: HostLine


@router.get("/host")
async def host_page(request: Request, viewer: SignedIn) -> Response:
    """The page."""
    services = services_of(request)
    containers = await services.containers.list()
    samples = latest_samples(services, containers)
    page = HostPage(
        shell=await build_shell(request, viewer, "host", containers=containers),
        host=host_line(await services.hosts.host(), list(samples.values()), time.time_ns()),
    )
    return render(request, page)
