"""Launch a container: the form, its preview of cost and command, and the launch itself."""

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from fastapi import APIRouter, Request, Response

from app.core.errors import Conflict, InvalidFields, NotFound, SlipwayError
from app.domain.container import Container
from app.domain.restart import RestartPolicyName
from app.domain.sizing import LaunchPlan
from app.web import formats
from app.web.commands import Command, launch_commands
from app.web.errors import WebRoute
from app.web.forms import Form, parse_form
from app.web.launch_form import LaunchForm, in_form_names, read_launch_form, values_of
from app.web.sessions import Posted, SignedIn, Viewer, services_of
from app.web.shell import Flash, Shell, build_shell, leave_page
from app.web.states import isolation_text
from app.web.templating import render

if TYPE_CHECKING:
    from app.services.bundle import Services

router = APIRouter(route_class=WebRoute)
# A start that is refused is refused at once; a boot is better watched on the container's page.
QUICK_ANSWER_S = 0.4


@dataclass(frozen=True)
class ImageChoice:
    """A local image in the form's list."""

    reference: str
    text: str


@dataclass(frozen=True)
class LaunchPage:
    """Context of the form; the block `preview` is its right side."""

    template: ClassVar[str] = "launch.html"
    shell: Shell
    form: LaunchForm
    choices: tuple[ImageChoice, ...]
    image_command: str
    policies: tuple[str, ...]
    plan: LaunchPlan | None
    isolation: str
    host_name: str
    commands: tuple[Command, ...]


async def _choices(services: "Services") -> tuple[ImageChoice, ...]:
    return tuple(
        ImageChoice(reference.familiar, formats.size(image.size_bytes))
        for image in await services.images.list()
        for reference in image.tags
    )


async def _image_command(services: "Services", reference: str) -> str:
    """What the image runs by itself, for the field's placeholder."""
    if not reference:
        return ""
    try:
        config = (await services.images.get(reference)).config
    except SlipwayError:
        return ""
    return " ".join((*config.entrypoint, *config.cmd))


async def _page(request: Request, viewer: Viewer, form: LaunchForm) -> LaunchPage:
    services = services_of(request)
    host = await services.hosts.host()
    return LaunchPage(
        shell=await build_shell(request, viewer, "containers"),
        form=form,
        choices=await _choices(services),
        image_command=await _image_command(services, form.values["image"]),
        policies=tuple(policy.value for policy in RestartPolicyName),
        plan=await services.containers.plan(form.config) if form.config else None,
        isolation=isolation_text(host.hypervisor, host.accelerator.name),
        host_name=host.name,
        commands=launch_commands(form.config, form.name) if form.config else (),
    )


@router.get("/launch")
async def launch_page(request: Request, viewer: SignedIn) -> Response:
    """The form; the query string fills it, `from` copies a container."""
    services = services_of(request)
    query = parse_form(request.url.query)
    source = query.text("from")
    if source:
        query = values_of(await services.containers.get(source))
    is_blank = not query.values()
    if is_blank:
        query = await _first_image(services)
    form = read_launch_form(query)
    # An untouched form shows no faults: nothing has been asked for yet.
    page = await _page(request, viewer, replace(form, faults={}) if is_blank else form)
    return render(request, page)


async def _first_image(services: "Services") -> Form:
    for image in await services.images.list():
        for reference in image.tags:
            return Form([("image", reference.familiar)])
    return Form([])


@router.post("/launch/preview")
async def preview(request: Request, viewer: SignedIn, form: Posted) -> Response:
    """Cost and command of what is typed so far; changes nothing."""
    page = await _page(request, viewer, read_launch_form(form))
    return render(request, page, block="preview")


@router.post("/launch")
async def launch(request: Request, viewer: SignedIn, form: Posted) -> Response:
    """Create and start; faults come back at their fields and nothing is created."""
    services = services_of(request)
    typed = read_launch_form(form)
    if typed.config is not None:
        container, typed = await _create(services, typed, viewer)
        if container is not None:
            flash = await _start(services, container, viewer)
            return leave_page(request, f"/containers/{container.short_id}", flash)
    page = await _page(request, viewer, typed)
    return render(request, page, block="form", status_code=422)


async def _create(
    services: "Services", typed: LaunchForm, viewer: Viewer
) -> tuple[Container | None, LaunchForm]:
    if typed.config is None:
        return None, typed
    try:
        container = await services.containers.create(
            typed.config, name=typed.name, initiator=viewer.user_name
        )
    except InvalidFields as error:
        return None, replace(typed, faults=in_form_names(error.faults))
    except NotFound as error:
        return None, replace(typed, faults={"image": f"{error.message}. {error.advice}".strip()})
    except Conflict as error:
        return None, replace(typed, faults={"name": f"{error.message} {error.advice}".strip()})
    return container, typed


async def _start(services: "Services", container: Container, viewer: Viewer) -> Flash | None:
    """Start it. The engine carries it out by itself, so this may stop waiting for the boot."""
    try:
        async with asyncio.timeout(QUICK_ANSWER_S):
            await services.containers.start(container.id, initiator=viewer.user_name)
    except TimeoutError:
        return None
    except SlipwayError as error:
        text = f"{container.name} was created and not started: {error.message}"
        return Flash("bad", text, error.advice)
    return None
