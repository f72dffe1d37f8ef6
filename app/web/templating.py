"""Jinja2 as this dashboard uses it: a page is a frozen dataclass, a fragment one of its blocks."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, ClassVar, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from app.resources import templates_dir
from app.web import formats
from app.web.assets import Assets
from app.web.states import hypervisor_name

FLASH_COOKIE = "slipway-note"


class Page(Protocol):
    """A frozen dataclass whose fields are all that its template gets."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    template: ClassVar[str]


class Templates:
    """The environment, strict about unknown names and always escaping."""

    def __init__(self, assets: Assets) -> None:
        self.environment = Environment(
            loader=FileSystemLoader(templates_dir()),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.globals = {
            "asset": assets.url,
            "has_asset": assets.__contains__,
            "range": range,
        }
        for filter_function in (
            formats.size,
            formats.size_parts,
            formats.duration,
            formats.milliseconds,
            formats.percent,
            formats.clock,
            formats.day_and_clock,
            formats.iso_time,
            formats.counted,
            formats.share,
            hypervisor_name,
        ):
            self.environment.filters[filter_function.__name__] = filter_function

    def page(self, page: Page) -> str:
        """The whole document."""
        return self.environment.get_template(page.template).render(_context(page))

    def block(self, page: Page, name: str) -> str:
        """One block of the page's template, with the same context."""
        template = self.environment.get_template(page.template)
        context = template.new_context(_context(page))
        # Up to its first output the template runs its imports and macros, which blocks use.
        next(template.root_render_func(context), None)
        return "".join(template.blocks[name](context))

    def macro(self, template_name: str, macro_name: str, *arguments: object) -> str:
        """One macro, for what the websocket sends: the same markup as the page's."""
        module = self.environment.get_template(template_name).module
        return str(getattr(module, macro_name)(*arguments))


def _context(page: Page) -> dict[str, Any]:
    return {field.name: getattr(page, field.name) for field in fields(page)}


def templates_of(request: Request) -> Templates:
    """The environment, put there by `install`."""
    templates: Templates = request.app.state.web.templates
    return templates


def is_fragment_request(request: Request) -> bool:
    """Whether htmx asks for a part of the page (htmx 4, HX-Request-Type)."""
    return request.headers.get("hx-request-type") == "partial"


def render(
    request: Request, page: Page, *, block: str | None = None, status_code: int = 200
) -> HTMLResponse:
    """The page, or one block of it when htmx asks for a part."""
    templates = templates_of(request)
    is_part = block is not None and is_fragment_request(request)
    body = templates.block(page, block) if block and is_part else templates.page(page)
    response = HTMLResponse(
        body, status_code=status_code, headers={"Vary": "HX-Request, HX-Request-Type"}
    )
    if FLASH_COOKIE in request.cookies and not is_part:
        response.delete_cookie(FLASH_COOKIE)  # this page shows it
    return response


def joined(parts: Iterable[str]) -> HTMLResponse:
    """Fragments for htmx, each of which names its own target (`<hx-partial>`)."""
    return HTMLResponse("".join(parts), headers={"Vary": "HX-Request, HX-Request-Type"})
