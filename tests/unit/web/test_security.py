import httpx2
import pytest
from starlette.datastructures import Headers

from app.settings import Settings
from app.web.security import HostRule, is_same_origin
from tests.unit.web.conftest import BASE_URL
from tests.unit.web.fake_services import ADMIN, Fakes


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:8080", True),
        ("localhost", True),
        ("slipway.localhost:8080", True),
        ("[::1]:8080", True),
        ("192.168.3.4", True),
        ("boxes.example.net", True),
        ("BOXES.example.net:443", True),
        ("boxes.example.net.", True),
        ("evil.example", False),
        ("boxes.example.net.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("[", False),
    ],
)
def test_host_rule_refuses_names_that_are_not_ours(host: str, *, expected: bool) -> None:
    rule = HostRule(Settings(public_url="https://boxes.example.net"))
    assert rule.allows(host) is expected


async def test_page_of_another_name_is_refused(anonymous: httpx2.AsyncClient) -> None:
    answer = await anonymous.get("/sign-in", headers={"Host": "evil.example"})
    assert answer.status_code == 421
    assert "SLIPWAY_PUBLIC_URL" in answer.text


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999"])
async def test_form_from_another_site_is_refused(
    anonymous: httpx2.AsyncClient, origin: str
) -> None:
    answer = await anonymous.post(
        "/sign-in", data={"name": ADMIN[0], "password": ADMIN[1]}, headers={"Origin": origin}
    )
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


async def test_cross_site_fetch_without_origin_is_refused(
    fakes: Fakes, anonymous: httpx2.AsyncClient
) -> None:
    del anonymous.headers["Origin"]
    answer = await anonymous.post("/sign-in", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403


async def test_every_answer_carries_the_policy(browser: httpx2.AsyncClient) -> None:
    for path in ("/", "/containers", "/nope", "/static/x/nope.js"):
        headers = (await browser.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"


async def test_pages_are_not_kept_by_caches(browser: httpx2.AsyncClient) -> None:
    assert (await browser.get("/")).headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    ["/", "/containers", "/launch", "/images", "/vms", "/host", "/events", "/containers/remove"],
)
async def test_page_without_session_leads_to_the_sign_in(
    anonymous: httpx2.AsyncClient, path: str
) -> None:
    answer = await anonymous.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/sign-in")


async def test_change_without_csrf_token_is_refused(
    browser: httpx2.AsyncClient, fakes: Fakes
) -> None:
    container = await fakes.launch("web")
    for data in ({}, {"csrf": "wrong"}, {"csrf": "wröng"}):
        answer = await browser.post(f"/containers/{container.id}/stop", data=data)
        assert answer.status_code == 403
    assert (await fakes.containers.get("web")).state.value == "running"


async def test_cookie_is_closed_to_scripts_and_other_sites(
    anonymous: httpx2.AsyncClient, fakes: Fakes
) -> None:
    answer = await anonymous.post("/sign-in", data={"name": ADMIN[0], "password": ADMIN[1]})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("slipway-8080=")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie  # plain HTTP on loopback; see the next test


def test_cookie_behind_tls_is_bound_to_its_host() -> None:
    from app.web.sessions import SessionCookie

    cookie = SessionCookie(Settings(public_url="https://boxes.example.net"))
    assert cookie.is_secure
    assert cookie.name == "__Host-slipway-8080"


@pytest.mark.parametrize(
    "target", ["//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil"]
)
async def test_sign_in_leads_nowhere_else(anonymous: httpx2.AsyncClient, target: str) -> None:
    answer = await anonymous.post(
        "/sign-in", data={"name": ADMIN[0], "password": ADMIN[1], "next": target}
    )
    assert answer.headers["location"] == "/"


async def test_oversized_form_is_refused(anonymous: httpx2.AsyncClient) -> None:
    answer = await anonymous.post("/sign-in", data={"name": "x" * (1024 * 1024 + 1)})
    assert answer.status_code == 400


async def test_page_of_error_shows_no_inside(browser: httpx2.AsyncClient, fakes: Fakes) -> None:
    async def broken() -> None:
        raise ZeroDivisionError("inner detail")

    fakes.hosts.host = broken  # type: ignore[assignment]
    answer = await browser.get("/host")
    assert answer.status_code == 500
    assert "inner detail" not in answer.text
    assert "fault in Slipway" in answer.text


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://boxes.example.net", True),
        ("http://10.0.0.1:8080", True),
        ("https://boxes.example.net:444", False),
        ("https://evil.example", False),
        ("null", False),
        ("http://[", False),
        ("", False),
    ],
)
def test_origin_is_the_host_or_the_public_url(origin: str, *, expected: bool) -> None:
    headers = Headers({"host": "10.0.0.1:8080", "origin": origin})
    assert is_same_origin(headers, "https://boxes.example.net/") is expected


def test_base_url_is_loopback() -> None:
    assert HostRule(Settings()).allows(BASE_URL.removeprefix("http://"))
