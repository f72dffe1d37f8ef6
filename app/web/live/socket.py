"""The websocket's route."""

from fastapi import APIRouter
from starlette.websockets import WebSocket

from app.web.live import logs, state
from app.web.live.connection import CODE_SIGNED_OUT, Connection
from app.web.live.topics import Request
from app.web.sessions import services_of, viewer_of

router = APIRouter()
CODE_TRY_LATER = 1013
TOPIC_MODULES = (state, logs)  # importing them is what registers their topics


@router.websocket("/ws")
async def live(websocket: WebSocket) -> None:
    """Serve one tab; the Origin was checked by the middleware before this."""
    viewer = await viewer_of(websocket)
    await websocket.accept()
    if viewer is None:
        await websocket.close(CODE_SIGNED_OUT, "Sign in first")
        return
    web = websocket.app.state.web
    if not web.live.has_room(viewer.session_token):
        await websocket.close(CODE_TRY_LATER, "Too many tabs")
        return
    request = Request(services_of(websocket), web.templates, viewer)
    connection = Connection(websocket, request, lambda: viewer_of(websocket))
    with web.live.registered(viewer.session_token, connection):
        await connection.run()
