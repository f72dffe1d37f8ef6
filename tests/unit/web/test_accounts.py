import httpx2
import pytest

from tests.unit.web.fake_services import ADMIN, Fakes


async def test_first_start_leads_to_setup(anonymous: httpx2.AsyncClient, fakes: Fakes) -> None:
    fakes.accounts.users.clear()
    assert (await anonymous.get("/sign-in")).headers["location"] == "/setup"
    assert "one-time link" in (await anonymous.get("/setup")).text


async def test_link_creates_the_admin_once(anonymous: httpx2.AsyncClient, fakes: Fakes) -> None:
    fakes.accounts.users.clear()
    page = await anonymous.get("/setup?token=setup-token")
    assert 'name="password"' in page.text
    answer = await anonymous.post(
        "/setup", data={"token": "setup-token", "name": "root", "password": "long enough"}
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert (await anonymous.get("/")).status_code == 200
    assert (await anonymous.get("/setup?token=setup-token")).headers["location"] == "/sign-in"


async def test_weak_password_is_said_at_its_field(
    anonymous: httpx2.AsyncClient, fakes: Fakes
) -> None:
    fakes.accounts.users.clear()
    answer = await anonymous.post(
        "/setup", data={"token": "setup-token", "name": "root", "password": "short"}
    )
    assert answer.status_code == 422
    assert 'id="password-e"' in answer.text
    assert "short" not in answer.text.replace("short-circuit", "")


async def test_wrong_link_gives_no_form(anonymous: httpx2.AsyncClient, fakes: Fakes) -> None:
    fakes.accounts.users.clear()
    answer = await anonymous.post(
        "/setup", data={"token": "guess", "name": "root", "password": "long enough"}
    )
    assert answer.status_code == 401
    assert 'name="password"' not in answer.text


async def test_wrong_password_keeps_the_name(anonymous: httpx2.AsyncClient) -> None:
    answer = await anonymous.post("/sign-in", data={"name": "admin", "password": "wrong"})
    assert answer.status_code == 401
    assert 'value="admin"' in answer.text
    assert "Name or password is wrong" in answer.text


async def test_throttle_says_when_to_try_again(anonymous: httpx2.AsyncClient) -> None:
    for _ in range(3):
        await anonymous.post("/sign-in", data={"name": "admin", "password": "wrong"})
    answer = await anonymous.post("/sign-in", data={"name": ADMIN[0], "password": ADMIN[1]})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "42"
    assert "Try again in 42 s" in answer.text


async def test_sign_in_leads_back(anonymous: httpx2.AsyncClient) -> None:
    first = await anonymous.get("/containers?q=web")
    assert first.headers["location"] == "/sign-in?next=/containers%3Fq%3Dweb"
    answer = await anonymous.post(
        "/sign-in", data={"name": ADMIN[0], "password": ADMIN[1], "next": "/containers?q=web"}
    )
    assert answer.headers["location"] == "/containers?q=web"


async def test_sign_out_ends_the_session(
    browser: httpx2.AsyncClient, csrf: str, fakes: Fakes
) -> None:
    answer = await browser.post("/sign-out", data={"csrf": csrf})
    assert answer.headers["location"] == "/sign-in?out"
    assert not fakes.accounts.sessions
    assert (await browser.get("/")).status_code == 303


@pytest.mark.parametrize(
    ("name", "value", "mark"),
    [("theme", "dark", 'data-theme="dark"'), ("density", "compact", 'data-density="compact"')],
)
async def test_look_is_remembered(
    browser: httpx2.AsyncClient, csrf: str, name: str, value: str, mark: str
) -> None:
    answer = await browser.post("/look", data={"csrf": csrf, name: value, "next": "/host"})
    assert answer.headers["location"] == "/host"
    assert mark in (await browser.get("/host")).text


async def test_unknown_look_is_ignored(browser: httpx2.AsyncClient, csrf: str) -> None:
    await browser.post("/look", data={"csrf": csrf, "theme": '"><script>'})
    assert "data-theme" not in (await browser.get("/host")).text
