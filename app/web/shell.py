"""What surrounds every page: navigation with counts, the user, theme, and a message left over."""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.web.sessions import Viewer, services_of
from app.web.states import Group, group_of
from app.web.templating import FLASH_COOKIE

if TYPE_CHECKING:
    from app.domain.container import Container

THEMES = ("system", "light", "dark")
DENSITIES = ("compact", "default", "comfortable")
FLASH_SECONDS = 30
FLASH_LIMIT_CHARACTERS = 350  # twice that, encoded, stays below a cookie's 4 KiB


@dataclass(frozen=True)
class Flash:
    """A message for the next page: what an action did, or why it did not."""

    tone: str  # "ok", "warn" or "bad"
    text: str
    advice: str = ""


@dataclass(frozen=True)
class Look:
    """How the operator likes it, from two cookies."""

    theme: str = "system"
    density: str = "default"


@dataclass(frozen=True)
class Shell:
    """Context of templates/base.html.

    Attributes:
        section: Which place of the navigation this page belongs to.
        path: Path and query of this page, to come back to after a change of theme.
    """

    section: str
    path: str
    user_name: str
    csrf_token: str
    host_name: str
    version: str
    containers_total: int
    containers_running: int
    containers_failed: int
    images_total: int
    vms_total: int
    look: Look
    flash: Flash | None


def look_of(request: Request) -> Look:
    """Read the cookies; anything unknown counts as the default."""
    theme = request.cookies.get("slipway-theme", "system")
    density = request.cookies.get("slipway-density", "default")
    return Look(
        theme=theme if theme in THEMES else "system",
        density=density if density in DENSITIES else "default",
    )


async def build_shell(
    request: Request,
    viewer: Viewer,
    section: str,
    *,
    containers: "Sequence[Container] | None" = None,
) -> Shell:
    """Collect the shell; give `containers` where the page has listed them already."""
    services = services_of(request)
    host = await services.hosts.host()
    if containers is None:
        containers = await services.containers.list()
    groups = [group_of(container) for container in containers]
    return Shell(
        section=section,
        path=local_path(str(request.url.replace(scheme="", netloc=""))),
        user_name=viewer.user_name,
        csrf_token=viewer.csrf_token,
        host_name=host.name,
        version=host.slipway_version,
        containers_total=len(containers),
        containers_running=groups.count(Group.RUNNING),
        containers_failed=groups.count(Group.FAILED),
        images_total=host.images_total,
        vms_total=sum(container.vm_id is not None for container in containers),
        look=look_of(request),
        flash=read_flash(request),
    )


def local_path(path: str, default: str = "/") -> str:
    """The path if it leads nowhere else than to this dashboard, else the default.

    Browsers read "//host" as another site, a backslash as a slash, and drop tabs and line ends.
    """
    is_local = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if is_local and path.isprintable() else default


def go_to(path: str, flash: Flash | None = None) -> Response:
    """Redirect after a change (303), with a message for the page that follows."""
    response = RedirectResponse(path, status_code=303)
    if flash is not None:
        leave_flash(response, flash)
    return response


def leave_page(request: Request, path: str, flash: Flash | None = None) -> Response:
    """Move the whole page, also when htmx asked: it would follow a redirect into a part of it."""
    response = go_to(path, flash)
    if "hx-request" in request.headers:
        response.status_code = 204
        del response.headers["location"]
        response.headers["HX-Redirect"] = path
    return response


def leave_flash(response: Response, flash: Flash) -> None:
    """Keep the message in a short-lived cookie; it is text, escaped where it is shown."""
    cut = Flash(
        flash.tone, flash.text[:FLASH_LIMIT_CHARACTERS], flash.advice[:FLASH_LIMIT_CHARACTERS]
    )
    packed = base64.urlsafe_b64encode(json.dumps(asdict(cut), ensure_ascii=False).encode()).decode()
    response.set_cookie(FLASH_COOKIE, packed, max_age=FLASH_SECONDS, httponly=True, samesite="lax")


def read_flash(request: Request) -> Flash | None:
    """The message left by the previous request, or None; nonsense counts as none."""
    packed = request.cookies.get(FLASH_COOKIE)
    if not packed:
        return None
    try:
        values = json.loads(base64.urlsafe_b64decode(packed))
        flash = Flash(str(values["tone"]), str(values["text"]), str(values["advice"]))
    except (binascii.Error, ValueError, KeyError, TypeError):
        return None
    return flash if flash.tone in {"ok", "warn", "bad"} else None
