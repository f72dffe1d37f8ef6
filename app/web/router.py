"""The dashboard put together: its routes, and what `install` adds to the application."""

from dataclasses import dataclass

from fastapi import APIRouter, FastAPI

from app.resources import static_dir
from app.settings import Settings
from app.web import (
    accounts,
    container,
    containers,
    events,
    hosts,
    images,
    launch,
    overview,
    vms,
)
from app.web.assets import MOUNT_PATH, Assets
from app.web.errors import missing_page
from app.web.live import socket
from app.web.live.registry import LiveSockets
from app.web.security import WebSecurity
from app.web.sessions import SessionCookie
from app.web.templating import Templates

router = APIRouter(include_in_schema=False)
for part in (
    accounts.router,
    overview.router,
    containers.router,  # before `container`, whose paths would take its own
    container.router,
    launch.router,
    images.router,
    vms.router,
    hosts.router,
    events.router,
    socket.router,
):
    router.include_router(part)


@dataclass(frozen=True)
class Web:
    """What the dashboard keeps for the life of the application, in `app.state.web`."""

    assets: Assets
    templates: Templates
    cookie: SessionCookie
    live: LiveSockets

    async def close(self) -> None:
        """Close every websocket; browsers connect again when the engine is back."""
        await self.live.close()


def install(app: FastAPI, settings: Settings) -> Web:
    """Add middleware, static files, the page for unknown paths, and `app.state.web`.

    Call once, before the application starts; reads static/ into memory. The lifespan awaits
    `close()` of what is returned.
    """
    assets = Assets(static_dir())
    web = Web(assets, Templates(assets), SessionCookie(settings), LiveSockets())
    app.state.web = web
    app.mount(MOUNT_PATH, assets)
    app.add_middleware(WebSecurity, settings=settings)
    app.add_exception_handler(404, missing_page)
    return web
