"""Pull and push as Docker's lines; credentials as its clients send them."""

import base64
import json
from typing import Any

import pytest
from starlette.requests import Request

from app.docker_api.pulling import draw_pull, draw_push, reference_of, wants_all_tags
from app.docker_api.registry_auth import AuthConfig, credentials_of
from app.domain.reference import Digest, Reference
from app.domain.registry import (
    Credentials,
    LayerProgress,
    LayerStage,
    TransferEnded,
    TransferStarted,
)

REFERENCE = Reference.parse("busybox:1.36")
DIGEST = Digest("a" * 64)


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def test_lines_of_a_pull() -> None:
    assert lines(draw_pull(TransferStarted(REFERENCE))) == [
        {"status": "Pulling from library/busybox", "id": "1.36"}
    ]
    assert lines(draw_pull(LayerProgress("abc", LayerStage.PULLING))) == [
        {"status": "Pulling fs layer", "progressDetail": {}, "id": "abc"}
    ]
    (step,) = lines(draw_pull(LayerProgress("abc", LayerStage.DOWNLOADING, 500, 1000)))
    assert step["status"] == "Downloading"
    assert step["progressDetail"] == {"current": 500, "total": 1000}
    assert "500B/1kB" in step["progress"]
    assert lines(draw_pull(TransferEnded(REFERENCE, DIGEST, 7, is_news=True))) == [
        {"status": f"Digest: {DIGEST}"},
        {"status": "Status: Downloaded newer image for busybox:1.36"},
    ]
    last = lines(draw_pull(TransferEnded(REFERENCE, DIGEST, 7, is_news=False)))[1]
    assert last == {"status": "Status: Image is up to date for busybox:1.36"}


def test_lines_of_a_push() -> None:
    assert lines(draw_push(TransferStarted(REFERENCE))) == [
        {"status": "The push refers to repository [docker.io/library/busybox]"}
    ]
    mounted = LayerProgress("abc", LayerStage.MOUNTED, source="library/other")
    assert lines(draw_push(mounted)) == [
        {"status": "Mounted from library/other", "progressDetail": {}, "id": "abc"}
    ]
    assert lines(draw_push(TransferEnded(REFERENCE, DIGEST, 7, is_news=False))) == [
        {"status": f"1.36: digest: {DIGEST} size: 7"},
        {"progressDetail": {}, "aux": {"Tag": "1.36", "Digest": str(DIGEST), "Size": 7}},
    ]


@pytest.mark.parametrize(
    ("name", "tag", "reference", "is_all"),
    [
        ("busybox", "1", "busybox:1", False),
        ("busybox", "", "busybox", True),
        ("busybox:1", "", "busybox:1", False),
        ("host:5000/app", "", "host:5000/app", True),
        ("app", f"{DIGEST}", f"app@{DIGEST}", False),
        (f"app@{DIGEST}", "", f"app@{DIGEST}", False),
    ],
)
def test_what_a_request_names(name: str, tag: str, reference: str, is_all: bool) -> None:
    assert reference_of(name, tag) == reference
    assert wants_all_tags(name, tag) is is_all


def request(header: str) -> Request:
    return Request({"type": "http", "headers": [(b"x-registry-auth", header.encode())]})


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, Credentials()),
        (None, Credentials()),
        ([1], Credentials()),
        ({"username": 7}, Credentials()),
        ({"username": "a", "password": "b?>"}, Credentials("a", "b?>")),
        ({"Username": "a", "PASSWORD": "b", "email": "x"}, Credentials("a", "b")),
        ({"auth": base64.b64encode(b"a:b:c").decode()}, Credentials("a", "b:c")),
        ({"identitytoken": "t"}, Credentials(identity_token="t")),
        ({"registrytoken": "t"}, Credentials(registry_token="t")),
    ],
)
def test_credentials(value: object, expected: Credentials) -> None:
    assert credentials_of(request(encoded(value))) == expected
    assert credentials_of(request(encoded(value).rstrip("="))) == expected


@pytest.mark.parametrize(
    "header", ["", "e30=", "null", "%%%", "e30", base64.b64encode(b"\xff").decode()]
)
def test_credentials_that_cannot_be_read_are_nobodys(header: str) -> None:
    assert credentials_of(request(header)) == Credentials()


def test_passwords_are_not_shown() -> None:
    assert "s3cret" not in repr(Credentials("a", "s3cret", "s3cret", "s3cret"))
    assert AuthConfig(server_address="x").credentials().is_empty
