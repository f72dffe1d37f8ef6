import gzip
from pathlib import Path

import httpx2
import pytest

from app.web.assets import Assets


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "js").mkdir()
    (tmp_path / "js" / "one.js").write_text("export const one = 1;\n" * 50)
    (tmp_path / "dot.png").write_bytes(b"\x89PNG")
    return tmp_path


async def get(assets: Assets, path: str, **headers: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=assets)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path, headers={"Accept-Encoding": "identity"} | headers)


def test_url_changes_with_any_content(directory: Path) -> None:
    before = Assets(directory).url("js/one.js")
    (directory / "dot.png").write_bytes(b"other")
    assert Assets(directory).url("js/one.js") != before


async def test_file_is_cached_for_ever(directory: Path) -> None:
    assets = Assets(directory)
    answer = await get(assets, assets.url("js/one.js"))
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"


async def test_file_of_an_old_page_is_not_cached(directory: Path) -> None:
    answer = await get(Assets(directory), "/static/000000000000/js/one.js")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")


async def test_text_is_compressed_if_the_browser_can(directory: Path) -> None:
    assets = Assets(directory)
    answer = await get(assets, assets.url("js/one.js"), **{"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.text == (directory / "js" / "one.js").read_text()
    assert assets.compressed_size_bytes("js/one.js") == len(
        gzip.compress(answer.content, 9, mtime=0)
    )


async def test_image_is_not_compressed(directory: Path) -> None:
    assets = Assets(directory)
    answer = await get(assets, assets.url("dot.png"), **{"Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/static/x/../../etc/passwd", "/static/x/%2e%2e/secret", "/static/"]
)
async def test_only_files_of_the_directory_are_served(directory: Path, path: str) -> None:
    assert (await get(Assets(directory), path)).status_code == 404


def test_missing_file_is_a_fault_of_the_template(directory: Path) -> None:
    with pytest.raises(KeyError, match=r"nope\.js"):
        Assets(directory).url("nope.js")
