"""First start, sign-in and sign-out, and how the dashboard looks to its user."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from fastapi import APIRouter, Depends, Request, Response

from app.core.errors import (
    InvalidArgument,
    InvalidFields,
    SlipwayError,
    TooManyRequests,
    Unauthenticated,
)
from app.web import formats
from app.web.errors import WebRoute, status_of
from app.web.forms import Form, read_body_form
from app.web.sessions import Posted, SignedIn, cookie_of, services_of, viewer_of
from app.web.shell import DENSITIES, THEMES, Look, go_to, local_path, look_of
from app.web.templating import render

router = APIRouter(route_class=WebRoute)
# Before a session there is no CSRF token; the Origin check stands before these forms.
Unsigned = Annotated[Form, Depends(read_body_form)]
YEAR_SECONDS = 365 * 86400


@dataclass(frozen=True)
class SignInPage:
    """Context of the sign-in."""

    template: ClassVar[str] = "sign-in.html"
    look: Look
    place: str
    next_path: str
    name: str = ""
    problem: str = ""
    advice: str = ""
    message: str = ""


@dataclass(frozen=True)
class SetupPage:
    """Context of the first start; without a token it says where the link is."""

    template: ClassVar[str] = "setup.html"
    look: Look
    place: str
    token: str = ""
    name: str = ""
    problem: str = ""
    advice: str = ""
    faults: Mapping[str, str] = field(default_factory=dict)


def _place(request: Request) -> str:
    return f"{request.headers.get('host', '')} · Slipway"


def _client(request: Request) -> str:
    return request.client.host if request.client else "unknown"


@router.get("/sign-in")
async def sign_in_page(request: Request) -> Response:
    """The form, or the way on for who is signed in, or for a first start."""
    next_path = local_path(request.query_params.get("next", "/"))
    if await viewer_of(request) is not None:
        return go_to(next_path)
    if await services_of(request).accounts.setup_required():
        return go_to("/setup")
    message = "You are signed out." if "out" in request.query_params else ""
    page = SignInPage(look_of(request), _place(request), next_path, message=message)
    return render(request, page)


@router.post("/sign-in")
async def sign_in(request: Request, form: Unsigned) -> Response:
    """Check name and password, and set the session's cookie."""
    next_path = local_path(form.text("next"))
    name = form.text("name")
    page = SignInPage(look_of(request), _place(request), next_path, name=name)
    try:
        session = await services_of(request).accounts.sign_in(
            name, form.raw("password"), client=_client(request)
        )
    except TooManyRequests as error:
        wait = formats.duration(math.ceil(error.retry_after_s))
        page = SignInPage(
            page.look,
            page.place,
            next_path,
            name=name,
            problem="Too many attempts.",
            advice=f"Try again in {wait}.",
        )
        response = render(request, page, status_code=429)
        response.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
        return response
    except (Unauthenticated, InvalidArgument) as error:
        page = SignInPage(
            page.look, page.place, next_path, name=name, problem=error.message, advice=error.advice
        )
        return render(request, page, status_code=401)
    answer = go_to(next_path)
    cookie_of(request).set(answer, session)
    return answer


@router.post("/sign-out")
async def sign_out(request: Request, viewer: SignedIn, _form: Posted) -> Response:
    """End the session, here and in every open tab."""
    await services_of(request).accounts.sign_out(viewer.session_token)
    await request.app.state.web.live.close_session(viewer.session_token)
    answer = go_to("/sign-in?out")
    cookie_of(request).clear(answer)
    return answer


@router.get("/setup")
async def setup_page(request: Request) -> Response:
    """The form behind the one-time link."""
    if not await services_of(request).accounts.setup_required():
        return go_to("/sign-in")
    token = request.query_params.get("token", "")
    return render(request, SetupPage(look_of(request), _place(request), token=token))


@router.post("/setup")
async def create_admin(request: Request, form: Unsigned) -> Response:
    """Create the first account and sign it in."""
    name, token = form.text("name"), form.text("token")
    look, place = look_of(request), _place(request)
    try:
        session = await services_of(request).accounts.create_first_admin(
            token, name, form.raw("password")
        )
    except InvalidFields as error:
        page = SetupPage(look, place, token=token, name=name, faults=error.faults)
        return render(request, page, status_code=422)
    except InvalidArgument as error:
        named = {error.field: error.message} if error.field in {"name", "password"} else {}
        page = SetupPage(
            look,
            place,
            token=token,
            name=name,
            problem="" if named else error.message,
            advice="" if named else error.advice,
            faults=named,
        )
        return render(request, page, status_code=422)
    except SlipwayError as error:
        # The link is wrong, used or too old: there is nothing to fill in any more.
        page = SetupPage(look, place, problem=error.message, advice=error.advice)
        return render(request, page, status_code=status_of(error)[0])
    answer = go_to("/")
    cookie_of(request).set(answer, session)
    return answer


@router.post("/look")
async def change_look(_viewer: SignedIn, form: Posted) -> Response:
    """Keep theme or row height in this browser."""
    answer = go_to(local_path(form.text("next")))
    for name, allowed in (("theme", THEMES), ("density", DENSITIES)):
        value = form.text(name)
        if value in allowed:
            answer.set_cookie(
                f"slipway-{name}", value, max_age=YEAR_SECONDS, httponly=True, samesite="lax"
            )
    return answer
