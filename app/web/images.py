"""The local images: what they are, who uses them, import by upload, removal."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from app.core.errors import SlipwayError
from app.domain.container import Container
from app.domain.image import Image
from app.web import formats
from app.web.containers import answer
from app.web.errors import WebRoute, status_of
from app.web.sessions import Posted, SignedIn, Viewer, require_csrf, services_of
from app.web.shell import Flash, Shell, build_shell, go_to
from app.web.templating import render
from app.web.uploads import MultipartUpload

if TYPE_CHECKING:
    from app.services.bundle import Services

router = APIRouter(route_class=WebRoute, prefix="/images")
IMAGES_PATH = "/images"


@dataclass(frozen=True)
class ImageRow:
    """One image."""

    id: str
    short_id: str
    name: str
    other_names: tuple[str, ...]
    size: tuple[str, str]
    layers: int
    platform: str
    created: str
    command: str
    users: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ImagesPage:
    """Context of the list."""

    template: ClassVar[str] = "images.html"
    shell: Shell
    rows: tuple[ImageRow, ...]
    total_size: str


@dataclass(frozen=True)
class ImageRemovalPage:
    """Context of the question before a removal."""

    template: ClassVar[str] = "image-remove.html"
    shell: Shell
    row: ImageRow


def image_row(image: Image, containers: Sequence[Container]) -> ImageRow:
    """An image as a table row; `users` are names and links of its containers."""
    names = [reference.familiar for reference in image.tags]
    return ImageRow(
        id=image.id,
        short_id=image.short_id,
        name=names[0] if names else "<none>",
        other_names=tuple(names[1:]),
        size=formats.size_parts(image.size_bytes),
        layers=len(image.diff_ids),
        platform=f"{image.os}/{image.architecture}",
        created=image.created.strftime("%d %b %Y") if image.created else "–",
        command=" ".join((*image.config.entrypoint, *image.config.cmd)),
        users=tuple(
            (one.name, f"/containers/{one.short_id}")
            for one in containers
            if one.image_id == image.id
        ),
    )


@router.get("")
async def images_page(request: Request, viewer: SignedIn) -> Response:
    """The page."""
    services = services_of(request)
    containers = await services.containers.list()
    images = await services.images.list()
    page = ImagesPage(
        shell=await build_shell(request, viewer, "images", containers=containers),
        rows=tuple(image_row(image, containers) for image in images),
        total_size=formats.size(sum(image.size_bytes for image in images)),
    )
    return render(request, page)


async def _import(
    services: "Services", chunks: AsyncIterator[bytes], reference: str, viewer: Viewer
) -> Flash:
    images = await services.images.import_stream(
        chunks, reference=reference or None, initiator=viewer.user_name, progress=None
    )
    names = ", ".join(image.display_name for image in images)
    return Flash("ok", f"Imported {names or 'nothing: the archive holds no image'}.")


@router.post("/import")
async def import_form(request: Request, viewer: SignedIn) -> Response:
    """The form without JavaScript: fields, then the file, read as they arrive."""
    upload = MultipartUpload(request)
    fields = await upload.read_fields()
    require_csrf(viewer, fields.get("csrf", ""))
    flash = await _import(
        services_of(request), upload.chunks(), fields.get("reference", ""), viewer
    )
    return go_to(IMAGES_PATH, flash)


@router.put("/import")
async def import_bare(request: Request, viewer: SignedIn, reference: str = "") -> Response:
    """The same from the page's script, which shows the progress; answers in JSON."""
    require_csrf(viewer, request.headers.get("x-csrf-token", ""))
    try:
        flash = await _import(services_of(request), request.stream(), reference.strip(), viewer)
    except SlipwayError as error:
        body = {"message": error.message, "advice": error.advice}
        return JSONResponse(body, status_code=status_of(error)[0])
    return JSONResponse({"message": flash.text, "advice": ""})


@router.get("/{ref:path}/remove")
async def removal_question(request: Request, ref: str, viewer: SignedIn) -> Response:
    """What goes with the image, and who keeps it."""
    services = services_of(request)
    image = await services.images.get(ref)
    row = image_row(image, await services.containers.list())
    page = ImageRemovalPage(await build_shell(request, viewer, "images"), row)
    return render(request, page, block="dialog")


@router.post("/{ref:path}/remove")
async def remove(request: Request, ref: str, viewer: SignedIn, form: Posted) -> Response:
    """Remove it; `force` also takes all of its names."""
    removal = await services_of(request).images.remove(
        ref, force=form.flag("force"), initiator=viewer.user_name
    )
    what = ", ".join(removal.untagged) or ref
    freed = f" {formats.size(removal.freed_bytes)} freed." if removal.freed_bytes else ""
    return answer(request, Flash("ok", f"Removed {what}.{freed}"), IMAGES_PATH, close_dialog=True)
