"""The JSON documents of images."""

import json
from datetime import UTC, datetime

import pytest

from app.core.errors import CorruptData, InvalidArgument, SlipwayError, Unsupported
from app.domain.image import ImageConfig
from app.domain.reference import Digest
from app.oci.config import (
    make_image_document,
    parse_descriptor,
    parse_image_document,
    parse_manifest,
    parse_object,
)
from app.oci.limits import ImportLimits
from tests.unit.oci.archives import OCI, bytes_id, descriptor, image_config

DIFF = Digest("1" * 64)


def manifest(layer_count: int = 1, **more: object) -> bytes:
    value = {
        "schemaVersion": 2,
        "config": descriptor(b"{}", f"{OCI}config.v1+json"),
        "layers": [descriptor(b"%d" % n, f"{OCI}layer.v1.tar") for n in range(layer_count)],
        **more,
    }
    return json.dumps(value).encode()


def parse(data: bytes) -> None:
    parse_manifest(data, what="manifest x", limits=ImportLimits())


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"1" * 5000], ids=bytes_id
)
def test_json_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptData, match="thing"):
        parse_object(data, what="thing")


def test_document_is_read() -> None:
    document = parse_image_document(image_config([b"x"]), what="image")
    assert document.created == datetime(2024, 5, 6, 7, 8, 9, 123456, UTC)
    assert (document.architecture, document.os) == ("amd64", "linux")
    assert document.config.cmd == ("sh",)


@pytest.mark.parametrize("created", [None, "", "yesterday", 5, "2024-13-01T00:00:00Z"])
def test_document_odd_dates_are_left_out(created: object) -> None:
    data = image_config([b"x"], created=created)
    assert parse_image_document(data, what="image").created is None


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"os": "windows"}, Unsupported, "is for 'windows'"),
        ({"os": 1}, CorruptData, "platform"),
        ({"rootfs": None}, CorruptData, "diff_ids"),
        ({"rootfs": {"diff_ids": "x"}}, CorruptData, "diff_ids"),
        ({"rootfs": {"diff_ids": ["sha256:xyz"]}}, CorruptData, "diff_id"),
        ({"rootfs": {"diff_ids": ["../../etc/passwd"]}}, CorruptData, "diff_id"),
        ({"config": {"Env": 1}}, CorruptData, "Env"),
    ],
)
def test_document_faults_are_refused(
    more: dict[str, object], error: type[SlipwayError], message: str
) -> None:
    with pytest.raises(error, match=message):
        parse_image_document(image_config([b"x"], **more), what="image 12")


def test_document_round_trip() -> None:
    created = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    config = ImageConfig(cmd=("sh",), env=("A=1",))
    data = make_image_document(config, created=created, architecture="arm64", diff_ids=[DIFF])
    document = parse_image_document(data, what="image")
    assert (document.config, document.created, document.diff_ids) == (config, created, (DIFF,))
    assert document.architecture == "arm64"


def test_document_same_input_same_bytes() -> None:
    first, second = (
        make_image_document(
            ImageConfig(labels=labels), created=None, architecture="amd64", diff_ids=[DIFF]
        )
        for labels in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    )
    assert first == second


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (manifest(schemaVersion=1), Unsupported, "schema version"),
        (manifest(config=None), CorruptData, "config"),
        (manifest(config=descriptor(b"", "application/x")), Unsupported, "no container image"),
        (manifest(0), InvalidArgument, "no layers"),
        (manifest(128), InvalidArgument, "128 layers; at most 127"),
        (manifest(10_000), InvalidArgument, "10,000 layers"),
        (manifest(layers=None), CorruptData, "list of layers"),
    ],
    ids=bytes_id,
)
def test_manifest_faults_are_refused(data: bytes, error: type[SlipwayError], message: str) -> None:
    with pytest.raises(error, match=message):
        parse(data)


def test_manifest_of_127_layers_is_accepted() -> None:
    parse(manifest(127))


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"mediaType": "x", "digest": str(DIFF), "size": -1},
        {"mediaType": "x", "digest": str(DIFF), "size": "1"},
        {"mediaType": "x", "digest": str(DIFF), "size": True},
        {"mediaType": "x", "digest": str(DIFF), "size": 2**70},
        {"mediaType": 5, "digest": str(DIFF), "size": 1},
        {"mediaType": "x", "digest": "sha256:../../x", "size": 1},
    ],
)
def test_descriptor_faults_are_refused(value: object) -> None:
    with pytest.raises(CorruptData, match="thing"):
        parse_descriptor(value, what="thing")
