"""The list of containers, and what can be done to many of them at once."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fastapi import APIRouter, Request, Response

from app.core.errors import AlreadyInState, InvalidArgument, SlipwayError
from app.domain.container import Container
from app.services.stats import ContainerSample
from app.web import formats
from app.web.errors import WebRoute
from app.web.forms import Form, parse_form
from app.web.listing import PAGE_ROWS, ListQuery, matches, ordered, parse_query
from app.web.removal import RemovalPage, losses_of, removal_confirmation
from app.web.rows import ContainerRow, container_row
from app.web.sessions import Posted, SignedIn, Viewer, services_of
from app.web.shell import Flash, Shell, build_shell, go_to, leave_page, local_path
from app.web.states import GROUP_MARKS, Mark, group_of
from app.web.templating import joined, render, templates_of

if TYPE_CHECKING:
    from app.services.bundle import Services

router = APIRouter(route_class=WebRoute)
SELECTION_LIMIT = 500
PARALLEL_ACTIONS = 4


@dataclass(frozen=True)
class Chip:
    """A filter by state with its count."""

    key: str
    mark: Mark | None
    text: str
    count: int
    url: str
    is_pressed: bool


@dataclass(frozen=True)
class ContainersPage:
    """Context of the list."""

    template: ClassVar[str] = "containers.html"
    shell: Shell
    query: ListQuery
    rows: tuple[ContainerRow, ...]
    chips: tuple[Chip, ...]
    shown_total: int
    all_total: int
    pages_total: int
    images_total: int


@dataclass(frozen=True)
class Listing:
    """The containers that a query shows, in order, and all there are."""

    every: Sequence[Container]
    matching: Sequence[Container]
    visible: Sequence[Container]


def latest_samples(
    services: "Services", containers: Sequence[Container]
) -> dict[str, ContainerSample]:
    """The newest sample of each container that has one."""
    found = ((one.id, services.stats.latest(one.id)) for one in containers if one.is_live)
    return {container_id: sample for container_id, sample in found if sample is not None}


async def list_for(services: "Services", query: ListQuery) -> Listing:
    """Read and arrange what the page and its live topic show."""
    every = await services.containers.list()
    matching = ordered(
        [one for one in every if matches(one, query)], query, latest_samples(services, every)
    )
    start = (query.page - 1) * PAGE_ROWS
    return Listing(every, matching, matching[start : start + PAGE_ROWS])


def chips_for(every: Sequence[Container], query: ListQuery) -> tuple[Chip, ...]:
    """All, then each group that has members or is chosen."""
    groups = [group_of(one) for one in every]
    chips = [Chip("all", None, "All", len(groups), query.url(group=None), query.group is None)]
    for group, mark in GROUP_MARKS.items():
        is_chosen = query.group is group
        url = query.url(group=None if is_chosen else group)
        chips.append(Chip(group.value, mark, mark.text, groups.count(group), url, is_chosen))
    return tuple(chips)


@router.get("/containers")
async def list_page(request: Request, viewer: SignedIn) -> Response:
    """The list; htmx gets the part below the filter."""
    services = services_of(request)
    query = parse_query(parse_form(request.url.query))
    listing = await list_for(services, query)
    now_ns = time.time_ns()
    shell = await build_shell(request, viewer, "containers", containers=listing.every)
    page = ContainersPage(
        shell=shell,
        query=query,
        rows=tuple(
            container_row(one, services.stats.history(one.id), now_ns) for one in listing.visible
        ),
        chips=chips_for(listing.every, query),
        shown_total=len(listing.matching),
        all_total=len(listing.every),
        pages_total=max(-(-len(listing.matching) // PAGE_ROWS), 1),
        images_total=shell.images_total,
    )
    return render(request, page, block="results")


@dataclass(frozen=True)
class Outcome:
    """What an action on several containers did."""

    done: tuple[str, ...]
    unchanged: tuple[str, ...]
    failures: tuple[str, ...]


def chosen_ids(form: Form) -> list[str]:
    """The ticked rows.

    Raises:
        InvalidArgument: None or too many are ticked.
    """
    ids = list(dict.fromkeys(form.all("id")))
    if not ids:
        raise InvalidArgument("No container is selected", advice="Tick some rows first.")
    if len(ids) > SELECTION_LIMIT:
        raise InvalidArgument(f"At most {SELECTION_LIMIT} containers can be changed at once")
    return ids


@router.post("/containers/selected")
async def change_selected(request: Request, viewer: SignedIn, form: Posted) -> Response:
    """Start, stop or remove the ticked containers."""
    verb = form.text("do")
    ids = chosen_ids(form)
    back = local_path(form.text("next"), "/containers")
    if verb == "remove":
        return await ask_before_removal(request, viewer, ids, back)
    if verb not in {"start", "stop"}:
        raise InvalidArgument(f"Containers can't be {verb!r}-ed: only start, stop and remove")
    outcome = await for_each(services_of(request), ids, verb, viewer)
    return answer(request, outcome_flash(verb, outcome), back)


async def ask_before_removal(
    request: Request,
    viewer: Viewer,
    ids: list[str],
    back: str,
    *,
    leaves: bool = False,
    problem: str = "",
) -> Response:
    """The question that lists what would be lost; a dialog for htmx, a page without it."""
    services = services_of(request)
    containers = [await services.containers.get(one) for one in ids]
    page = RemovalPage(
        shell=await build_shell(request, viewer, "containers"),
        losses=tuple(losses_of(containers, time.time_ns())),
        confirmation=removal_confirmation(containers),
        live_total=sum(one.is_live for one in containers),
        back=back,
        leaves=leaves,
        problem=problem,
    )
    return render(request, page, block="dialog", status_code=422 if problem else 200)


@router.get("/containers/remove")
async def removal_page(request: Request, viewer: SignedIn) -> Response:
    """The same question as a link."""
    query = parse_form(request.url.query)
    back = local_path(query.text("next"), "/containers")
    return await ask_before_removal(request, viewer, chosen_ids(query), back)


@router.post("/containers/remove")
async def remove_selected(request: Request, viewer: SignedIn, form: Posted) -> Response:
    """Remove, if what was typed names what runs."""
    services = services_of(request)
    ids = chosen_ids(form)
    back = local_path(form.text("next"), "/containers")
    containers = [await services.containers.get(one) for one in ids]
    leaves = form.flag("leaves")
    wanted = removal_confirmation(containers)
    if wanted and form.text("confirm") != wanted:
        problem = f"Nothing was removed. Type {wanted} to confirm."
        return await ask_before_removal(request, viewer, ids, back, leaves=leaves, problem=problem)
    outcome = await for_each(services, ids, "remove", viewer, force=bool(wanted))
    flash = outcome_flash("remove", outcome)
    if leaves and not outcome.failures:
        return leave_page(request, back, flash)
    return answer(request, flash, back, close_dialog=True)


async def for_each(
    services: "Services", ids: list[str], verb: str, viewer: Viewer, *, force: bool = False
) -> Outcome:
    """Do one thing to each; one failure does not keep the others from being tried."""
    limit = asyncio.Semaphore(PARALLEL_ACTIONS)

    async def one(container_id: str) -> tuple[str, str]:
        async with limit:
            try:
                container = await services.containers.get(container_id)
                await _do(services, verb, container_id, viewer, force=force)
            except AlreadyInState as error:
                return "unchanged", error.message
            except SlipwayError as error:
                return "failed", f"{error.message} {error.advice}".strip()
            return "done", container.name

    results = await asyncio.gather(*(one(container_id) for container_id in ids))
    return Outcome(
        done=tuple(text for kind, text in results if kind == "done"),
        unchanged=tuple(text for kind, text in results if kind == "unchanged"),
        failures=tuple(text for kind, text in results if kind == "failed"),
    )


async def _do(
    services: "Services", verb: str, container_id: str, viewer: Viewer, *, force: bool
) -> None:
    match verb:
        case "start":
            await services.containers.start(container_id, initiator=viewer.user_name)
        case "stop":
            await services.containers.stop(container_id, initiator=viewer.user_name)
        case _:
            await services.containers.remove(container_id, force=force, initiator=viewer.user_name)


_PAST = {"start": "Started", "stop": "Stopped", "remove": "Removed"}


def outcome_flash(verb: str, outcome: Outcome) -> Flash:
    """One sentence on what was done, and each failure after it."""
    if len(outcome.done) == 1:
        text = f"{_PAST[verb]} {outcome.done[0]}."
    elif outcome.done or not outcome.failures:
        text = f"{_PAST[verb]} {formats.counted(len(outcome.done), 'container')}."
    else:
        text = f"Nothing was {_PAST[verb].lower()}."
    if outcome.unchanged:
        text += f" {formats.counted(len(outcome.unchanged), 'container')} needed nothing."
    if not outcome.failures:
        return Flash("ok", text)
    return Flash("bad", f"{text} {len(outcome.failures)} failed:", " ".join(outcome.failures))


def answer(request: Request, flash: Flash, back: str, *, close_dialog: bool = False) -> Response:
    """Say what was done: in a corner for htmx, on the next page without it."""
    if "hx-request" not in request.headers:
        return go_to(back, flash)
    templates = templates_of(request)
    toast = templates.macro(
        "_macros/ui.html", "toast_partial", flash.tone, flash.text, flash.advice
    )
    response = joined([toast])
    events = ["slipway:changed"] + (["slipway:close-dialog"] if close_dialog else [])
    response.headers["HX-Trigger"] = ", ".join(events)
    return response
