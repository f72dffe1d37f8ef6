"""Files of containers over REST: over the engine with the fake machine."""

import io
import tarfile

import httpx2

from tests.integration.test_api import client  # noqa: F401 - a fixture
from tests.integration.test_docker_copy import archive

BOX = {"image": "busybox", "name": "box", "command": ["true"]}


async def test_files_changes_and_an_image_of_a_container(client: httpx2.AsyncClient) -> None:  # noqa: F811
    assert (await client.post("/containers", json=BOX)).status_code == 201
    put = await client.put(
        "/containers/box/files", params={"path": "/tmp"}, content=archive({"f": b"data"})
    )
    assert put.status_code == 204
    got = await client.get("/containers/box/files", params={"path": "/tmp/f"})
    assert got.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(got.content)) as tar:
        file = tar.extractfile("f")
        assert file is not None
        assert file.read() == b"data"
    changes = await client.get("/containers/box/changes")
    assert changes.json() == [
        {"path": "/tmp", "kind": "modified"},
        {"path": "/tmp/f", "kind": "added"},
    ]
    body = {"reference": "made:one", "changes": ["ENV A=b"]}
    made = await client.post("/containers/box/commit", json=body)
    assert made.status_code == 201
    assert made.json()["references"] == ["made:one"]
    assert "A=b" in made.json()["env"]


async def test_what_can_not_be_is_a_problem(client: httpx2.AsyncClient) -> None:  # noqa: F811
    await client.post("/containers", json=BOX)
    missing = await client.get("/containers/box/files", params={"path": "/nope"})
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    broken = await client.put(
        "/containers/box/files", params={"path": "/tmp"}, content=b"no tar at all" * 100
    )
    assert broken.status_code in {400, 422}
    nobody = await client.post("/containers/nobox/commit", json={})
    assert nobody.status_code == 404
