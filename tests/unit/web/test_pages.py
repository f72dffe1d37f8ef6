import re

import httpx2
import pytest

from app.domain.container import ended
from app.domain.log import LogStream
from app.domain.vm import StartPath
from app.services.pool import PoolView
from tests.unit.web.fake_services import Fakes
from tests.unit.web.fake_stores import now_ns, sample

HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.mark.parametrize(
    "path", ["/", "/containers", "/launch", "/images", "/vms", "/host", "/events"]
)
async def test_page_has_title_heading_and_place(browser: httpx2.AsyncClient, path: str) -> None:
    answer = await browser.get(path)
    assert answer.status_code == 200
    assert answer.text.count("<h1") == 1
    assert "· Slipway</title>" in answer.text
    assert answer.text.count('aria-current="page"') >= 1


async def test_empty_list_teaches(browser: httpx2.AsyncClient) -> None:
    text = (await browser.get("/containers")).text
    assert "Nothing launched yet" in text
    assert "/api/v1/containers" in text


async def test_list_shows_state_numbers_and_actions(
    browser: httpx2.AsyncClient, fakes: Fakes
) -> None:
    web = await fakes.launch("web")
    fakes.stats.samples[web.id] = [sample(38.4), sample(38.4)]
    text = (await browser.get("/containers")).text
    assert f'id="c-{web.short_id}"' in text
    assert "Running" in text
    assert f'data-live="cpu-{web.short_id}">38<' in text
    assert f'formaction="/containers/{web.short_id}/stop"' in text


async def test_list_filter_and_state_are_in_the_url(
    browser: httpx2.AsyncClient, fakes: Fakes
) -> None:
    web, job = await fakes.launch("web"), await fakes.launch("job")
    fakes.containers.put(ended(job, exit_code=3, at_ns=now_ns()))
    text = (await browser.get("/containers?state=failed&q=j")).text
    assert f"c-{job.short_id}" in text
    assert f"c-{web.short_id}" not in text
    assert "Exited 3" in text


async def test_list_for_htmx_is_the_part_below_the_filter(
    browser: httpx2.AsyncClient, fakes: Fakes
) -> None:
    await fakes.launch("web")
    answer = await browser.get(
        "/containers", headers={"HX-Request": "true", "HX-Request-Type": "partial"}
    )
    assert "<table>" in answer.text
    assert "<html" not in answer.text
    assert "HX-Request-Type" in answer.headers["vary"]


async def test_list_comes_in_pages(browser: httpx2.AsyncClient, fakes: Fakes) -> None:
    for number in range(201):
        await fakes.launch(f"c{number:03}")
    first, second = (
        (await browser.get("/containers")).text,
        (await browser.get("/containers?page=2")).text,
    )
    assert first.count("data-row=") == 200
    assert second.count("data-row=") == 1
    assert "Page 1 of 2" in first


async def test_hostile_texts_are_escaped(browser: httpx2.AsyncClient, fakes: Fakes) -> None:
    web = await fakes.launch(
        "web", command=("sh", HOSTILE), env=(f"A={HOSTILE}",), labels={"l": HOSTILE}
    )
    fakes.logs.write(web.id, HOSTILE)
    fakes.logs.consoles[web.id] = HOSTILE.encode()
    fakes.containers.put(ended(web, exit_code=1, at_ns=now_ns(), error=HOSTILE))
    for path in (
        "/", "/containers", "/events", f"/containers/{web.id}", f"/containers/{web.id}/console",
        f"/containers/{web.id}/inspect", f"/launch?from={web.short_id}", f"/containers?q={HOSTILE}",
        f"/launch?image={HOSTILE}&name={HOSTILE}",
    ):  # fmt: skip
        assert "<img" not in (await browser.get(path)).text, path


async def test_container_page_shows_boot_memory_and_actions(
    browser: httpx2.AsyncClient, fakes: Fakes
) -> None:
    web = await fakes.launch("web")
    fakes.stats.samples[web.id] = [sample()]
    text = (await browser.get(f"/containers/{web.short_id}")).text
    assert "1.21 s" in text
    assert "Host-resident" in text
    assert "Own kernel" in text
    assert "none in this release" in text
    for verb in ("stop", "restart", "pause", "kill"):
        assert f"/containers/{web.short_id}/{verb}" in text
    assert "/start" not in text


async def test_container_page_of_a_failure_says_why(
    browser: httpx2.AsyncClient, fakes: Fakes
) -> None:
    web = await fakes.launch("web")
    fakes.containers.put(
        ended(web, exit_code=137, at_ns=now_ns(), oom_killed=True, error="guest died")
    )
    text = (await browser.get(f"/containers/{web.short_id}")).text
    assert "ran out of memory" in text
    assert "guest died" in text
    assert re.search(r"Exit code</dt><dd>\s*137", text)


async def test_unknown_container_is_a_page(browser: httpx2.AsyncClient) -> None:
    answer = await browser.get("/containers/nope")
    assert answer.status_code == 404
    assert "No such container: nope" in answer.text


async def test_unknown_path_is_a_page_and_json_for_programs(browser: httpx2.AsyncClient) -> None:
    assert "There is no page /nope" in (await browser.get("/nope")).text
    answer = await browser.get("/api/v1/nope")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_stored_lines_are_read_by_number(browser: httpx2.AsyncClient, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    fakes.logs.write(web.id, "one", "two")
    fakes.logs.write(web.id, "oops", stream=LogStream.STDERR)
    answer = await browser.get(f"/containers/{web.short_id}/log?from_seq=2&limit=10")
    lines = answer.json()["lines"]
    assert [(line[0], line[2], line[3]) for line in lines] == [(2, 0, "two"), (3, 1, "oops")]


@pytest.mark.parametrize("query", ["from_seq=0", "limit=99999", "from_seq=x"])
async def test_odd_line_numbers_are_refused(
    browser: httpx2.AsyncClient, fakes: Fakes, query: str
) -> None:
    web = await fakes.launch("web")
    assert (await browser.get(f"/containers/{web.short_id}/log?{query}")).status_code == 400


async def test_log_is_downloaded_whole(browser: httpx2.AsyncClient, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    fakes.logs.write(web.id, *(f"line {number}" for number in range(2500)))
    answer = await browser.get(f"/containers/{web.short_id}/log.txt")
    lines = answer.text.splitlines()
    assert len(lines) == 2500
    assert lines[-1].endswith("stdout line 2499")
    assert 'filename="web.log"' in answer.headers["content-disposition"]


async def test_console_is_text(browser: httpx2.AsyncClient, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    fakes.logs.consoles[web.id] = b"[0.0] Linux\r\nbell\x07 \xff\r\n"
    text = (await browser.get(f"/containers/{web.short_id}/console")).text
    assert "[0.0] Linux\nbell " in text
    assert "\x07" not in text


async def test_overview_names_what_needs_attention(
    browser: httpx2.AsyncClient, fakes: Fakes
) -> None:
    job = await fakes.launch("job")
    fakes.containers.put(ended(job, exit_code=3, at_ns=now_ns()))
    fakes.hosts.memory_available_bytes = 100
    text = (await browser.get("/")).text
    assert "ended with exit code 3" in text
    assert "Little memory" in text
    assert "KVM opened and the guest did not boot" in text


@pytest.mark.parametrize(
    ("pool", "text"),
    [
        (PoolView(4, 4), "4 of 4 warmed VMs wait<"),
        (PoolView(4, 4, "", 160 << 20), "4 of 4 warmed VMs wait and hold 160 MiB<"),
        (PoolView(0, 1), "0 of 1 warmed VMs wait: more are being made<"),
        (PoolView(1, 4, "no room"), "1 of 4 warmed VMs wait: no room<"),
        (None, "off: no VM waits, each start makes its own<"),
    ],
)
async def test_host_tells_what_waits_in_the_pool(
    browser: httpx2.AsyncClient, fakes: Fakes, pool: PoolView | None, text: str
) -> None:
    fakes.hosts.pool = pool
    assert text in (await browser.get("/host")).text


@pytest.mark.parametrize(
    ("path", "words"),
    [(StartPath.POOL, "from the pool"), (StartPath.CLONE, "by a clone"), (None, "")],
)
async def test_container_tells_by_which_path_it_started(
    browser: httpx2.AsyncClient, fakes: Fakes, path: StartPath | None, words: str
) -> None:
    web = await fakes.launch("web")
    fakes.hosts.start_path = path
    text = (await browser.get(f"/containers/{web.short_id}")).text
    assert re.search(rf"to PID 1 <b[^>]*>1.68 s</b>{words and ' ' + words}</span>", text)


async def test_events_go_back_page_by_page(browser: httpx2.AsyncClient, fakes: Fakes) -> None:
    for number in range(60):
        await fakes.launch(f"c{number}")
    newest = (await browser.get("/events")).text
    older = re.search(r'href="(/events\?before=\d+)"', newest)
    assert older is not None
    assert "c59" in newest
    assert "c0</a>" in (await browser.get(older[1])).text
