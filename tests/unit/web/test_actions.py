import io
import tarfile

import httpx2
import pytest

from app.core.errors import ResourceExhausted
from tests.unit.web.fake_services import Fakes

FIELD = b'--b\r\ncontent-disposition: form-data; name="%s"\r\n\r\n'
HTMX = {"HX-Request": "true", "HX-Request-Type": "partial"}


async def state(fakes: Fakes, name: str) -> str:
    return (await fakes.containers.get(name)).state.value


@pytest.mark.parametrize(
    ("verbs", "expected"),
    [
        (["stop"], "exited"),
        (["pause"], "paused"),
        (["pause", "unpause"], "running"),
        (["kill"], "exited"),
        (["stop", "start"], "running"),
        (["restart"], "running"),
    ],
)
async def test_action_changes_the_container(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes, verbs: list[str], expected: str
) -> None:
    web = await fakes.launch("web")
    for verb in verbs:
        answer = await browser.post(f"/containers/{web.short_id}/{verb}", data={"csrf": csrf})
        assert (answer.status_code, answer.headers["location"]) == (
            303,
            f"/containers/{web.short_id}",
        )
    assert await state(fakes, "web") == expected
    assert {event.initiator for event in fakes.events.all} <= {"admin", "engine"}


async def test_action_says_what_it_did_on_the_next_page_once(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    web = await fakes.launch("web")
    await browser.post(f"/containers/{web.short_id}/stop", data={"csrf": csrf})
    assert "Stopped web." in (await browser.get("/containers")).text
    assert "Stopped web." not in (await browser.get("/containers")).text


async def test_action_for_htmx_answers_with_a_message(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    web = await fakes.launch("web")
    answer = await browser.post(
        f"/containers/{web.short_id}/stop", headers=HTMX | {"X-CSRF-Token": csrf}
    )
    assert 'hx-target="#toasts"' in answer.text
    assert answer.headers["hx-trigger"] == "slipway:changed"


async def test_action_that_is_not_possible_says_so(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    web = await fakes.launch("web")
    answer = await browser.post(f"/containers/{web.short_id}/unpause", data={"csrf": csrf})
    assert answer.status_code == 409
    assert "is not paused" in answer.text


async def test_action_that_is_not_needed_is_no_error(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    web = await fakes.launch("web")
    answer = await browser.post(f"/containers/{web.short_id}/start", data={"csrf": csrf})
    assert answer.status_code == 303
    assert "already running" in (await browser.get("/containers")).text


async def test_unknown_action_is_refused(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    web = await fakes.launch("web")
    answer = await browser.post(f"/containers/{web.short_id}/explode", data={"csrf": csrf})
    assert answer.status_code == 400


async def test_rename(browser: httpx2.AsyncClient, csrf: str, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    await browser.post(f"/containers/{web.short_id}/rename", data={"csrf": csrf, "name": "front"})
    assert (await fakes.containers.get(web.id)).name == "front"


async def test_signal_is_passed_on(browser: httpx2.AsyncClient, csrf: str, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    await browser.post(f"/containers/{web.short_id}/kill", data={"csrf": csrf, "signal": "SIGHUP"})
    assert await state(fakes, "web") == "running"
    assert fakes.events.all[-1].attributes == {"signal": "SIGHUP"}


async def test_many_are_stopped_at_once(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    ids = [(await fakes.launch(name)).id for name in ("a1", "b2", "c3")]
    await fakes.containers.stop(ids[0], initiator="admin")
    answer = await browser.post(
        "/containers/selected",
        data={"csrf": csrf, "do": "stop", "id": ids, "next": "/containers?q=x"},
    )
    assert answer.headers["location"] == "/containers?q=x"
    assert [await state(fakes, name) for name in ("a1", "b2", "c3")] == ["exited"] * 3
    text = (await browser.get("/containers")).text
    assert "Stopped 2 containers. 1 container needed nothing." in text


async def test_one_failure_does_not_keep_the_others(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    web = await fakes.launch("web")
    await browser.post(
        "/containers/selected", data={"csrf": csrf, "do": "stop", "id": ["f" * 64, web.id]}
    )
    assert await state(fakes, "web") == "exited"
    assert "1 failed:" in (await browser.get("/containers")).text


@pytest.mark.parametrize("ids", [[], ["x"] * 1 + [f"{n}" for n in range(600)]])
async def test_selection_is_bounded(browser: httpx2.AsyncClient, csrf: str, ids: list[str]) -> None:
    answer = await browser.post(
        "/containers/selected", data={"csrf": csrf, "do": "stop", "id": ids}
    )
    assert answer.status_code == 400


async def test_removal_asks_first_and_lists_what_is_lost(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    ids = [(await fakes.launch(name)).id for name in ("a1", "b2")]
    answer = await browser.post(
        "/containers/selected", data={"csrf": csrf, "do": "remove", "id": ids}
    )
    assert answer.status_code == 200
    assert "Remove 2 containers?" in answer.text
    assert 'data-must-equal="2"' in answer.text
    assert len(fakes.containers.all) == 2


@pytest.mark.parametrize("typed", ["", "WEB", "we", "1"])
async def test_running_container_is_removed_only_by_its_name(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes, typed: str
) -> None:
    web = await fakes.launch("web")
    answer = await browser.post(
        "/containers/remove", data={"csrf": csrf, "id": web.id, "confirm": typed}
    )
    assert answer.status_code == 422
    assert "Type web to confirm" in answer.text
    assert web.id in fakes.containers.all


async def test_running_container_is_removed_by_its_name(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    web = await fakes.launch("web")
    answer = await browser.post(
        "/containers/remove",
        data={"id": web.id, "confirm": "web"},
        headers=HTMX | {"X-CSRF-Token": csrf},
    )
    assert not fakes.containers.all
    assert "Removed web." in answer.text
    assert "slipway:close-dialog" in answer.headers["hx-trigger"]


async def test_stopped_container_is_removed_without_typing(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    web = await fakes.launch("web")
    await fakes.containers.stop(web.id, initiator="admin")
    await browser.post("/containers/remove", data={"csrf": csrf, "id": web.id})
    assert not fakes.containers.all


async def test_container_that_started_meanwhile_needs_its_name(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    web = await fakes.launch("web")
    await fakes.containers.stop(web.id, initiator="admin")
    await fakes.containers.start(web.id, initiator="admin")
    answer = await browser.post("/containers/remove", data={"csrf": csrf, "id": web.id})
    assert answer.status_code == 422


async def test_launch_creates_starts_and_leads_to_the_log(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    answer = await browser.post(
        "/launch",
        data={"csrf": csrf, "image": "busybox:latest", "name": "web", "command": "sh -c 'echo hi'"},
    )
    web = await fakes.containers.get("web")
    assert answer.headers["location"] == f"/containers/{web.short_id}"
    assert web.state.value == "running"
    assert web.config.command == ("sh", "-c", "echo hi")


async def test_launch_by_htmx_moves_the_whole_page(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    answer = await browser.post(
        "/launch",
        data={"image": "busybox:latest", "name": "web"},
        headers=HTMX | {"X-CSRF-Token": csrf},
    )
    assert answer.status_code == 204
    assert answer.headers["hx-redirect"].startswith("/containers/")


async def test_launch_does_not_wait_for_the_boot(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    import asyncio

    fakes.containers.boot_gate = asyncio.Event()
    answer = await browser.post(
        "/launch", data={"csrf": csrf, "image": "busybox:latest", "name": "web"}
    )
    assert answer.status_code == 303
    assert await state(fakes, "web") == "starting"


@pytest.mark.parametrize(
    ("fields", "element"),
    [
        ({"image": "nope"}, "image-e"),
        ({"image": ""}, "image-e"),
        ({"name": "taken"}, "name-e"),
        ({"memory": "1m"}, "memory-e"),
        ({"env": "NOPE"}, "env-e"),
    ],
)
async def test_launch_fault_is_at_its_field_and_nothing_is_created(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes, fields: dict[str, str], element: str
) -> None:
    await fakes.launch("taken")
    data = {"csrf": csrf, "image": "busybox:latest", "command": "echo kept"} | fields
    answer = await browser.post("/launch", data=data)
    assert answer.status_code == 422
    assert f'id="{element}"' in answer.text
    assert "echo kept" in answer.text
    assert len(fakes.containers.all) == 1


async def test_launch_that_is_refused_says_why(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    fakes.containers.refuse_start = ResourceExhausted("the host has too little", advice="Stop one.")
    answer = await browser.post(
        "/launch", data={"csrf": csrf, "image": "busybox:latest", "name": "web"}
    )
    text = (await browser.get(answer.headers["location"])).text
    assert "web was created and not started: the host has too little" in text


async def test_preview_shows_cost_and_command_and_changes_nothing(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    answer = await browser.post(
        "/launch/preview",
        data={"image": "busybox:latest", "memory": "256m"},
        headers=HTMX | {"X-CSRF-Token": csrf},
    )
    assert "256 MiB" in answer.text
    assert "curl -sS" in answer.text
    assert "<html" not in answer.text
    assert not fakes.containers.all


def tar_bytes(size_bytes: int = 3000) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("etc/motd")
        info.size = size_bytes
        archive.addfile(info, io.BytesIO(b"x" * size_bytes))
    return buffer.getvalue()


async def test_upload_by_script_is_streamed(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    body = tar_bytes()
    answer = await browser.put(
        "/images/import?reference=mine:1", content=body, headers={"X-CSRF-Token": csrf}
    )
    assert answer.json()["message"] == "Imported mine:1."
    assert fakes.images.imported_bytes == len(body)


async def test_upload_by_script_needs_its_token(browser: httpx2.AsyncClient, fakes: Fakes) -> None:
    answer = await browser.put("/images/import", content=tar_bytes())
    assert answer.status_code == 403
    assert fakes.images.imported_bytes == 0


async def test_upload_of_something_else_says_so(browser: httpx2.AsyncClient, csrf: str) -> None:
    answer = await browser.put(
        "/images/import", content=b"hello" * 200, headers={"X-CSRF-Token": csrf}
    )
    assert answer.status_code >= 400
    assert answer.json()["message"] == "The upload is not a tar archive"


async def test_upload_by_form(browser: httpx2.AsyncClient, csrf: str, fakes: Fakes) -> None:
    body = tar_bytes(300_000)
    answer = await browser.post(
        "/images/import",
        data={"csrf": csrf, "reference": "mine:1"},
        files={"file": ("x.tar", body, "application/x-tar")},
    )
    assert answer.headers["location"] == "/images"
    assert fakes.images.imported_bytes == len(body)
    assert "Imported mine:1." in (await browser.get("/images")).text


async def test_upload_by_form_checks_the_token_before_the_file(
    browser: httpx2.AsyncClient, fakes: Fakes
) -> None:
    answer = await browser.post(
        "/images/import", data={"csrf": "no"}, files={"file": ("x.tar", tar_bytes())}
    )
    assert answer.status_code == 403
    assert fakes.images.imported_bytes == 0


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", b"x"),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"not a multipart body"),
        ("multipart/form-data; boundary=b", FIELD % b"a" + b"x" * 9000),
        ("multipart/form-data; boundary=b", FIELD % b"csrf" + b"x\r\n--b--\r\n"),
    ],
    ids=["type", "boundary", "body", "long-field", "no-file"],
)  # fmt: skip
async def test_damaged_upload_is_refused(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes, content_type: str, body: bytes
) -> None:
    answer = await browser.post(
        "/images/import", content=body, headers={"Content-Type": content_type}
    )
    assert answer.status_code == 400
    assert fakes.images.imported_bytes == 0


async def test_image_in_use_can_not_be_removed_from_the_page(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    await fakes.launch("web")
    image = fakes.images.all[0]
    text = (await browser.get(f"/images/{image.id}/remove")).text
    assert "Containers use it." in text
    assert "disabled" in text


async def test_image_is_removed(browser: httpx2.AsyncClient, csrf: str, fakes: Fakes) -> None:
    image = fakes.images.all[0]
    answer = await browser.post(f"/images/{image.id}/remove", data={"csrf": csrf})
    assert answer.status_code == 303
    assert not fakes.images.all
    assert "Removed busybox:latest. 4.0 MiB freed." in (await browser.get("/images")).text
