"""What is decided about registries without asking one."""

import json

import pytest

from app.core.errors import CorruptData, InvalidArgument
from app.domain.reference import Reference
from app.domain.registry import Platform, RegistryLacks
from app.oci.config import digest_of
from app.oci.registry.challenge import Challenge, parse_challenges
from app.oci.registry.manifests import Document, choose, read_document
from app.oci.registry.options import RegistryOptions, parse_insecure, parse_mirrors
from app.oci.registry.refusals import pull_refusal, push_refusal, refusal

INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="x"', [Challenge("basic", {"realm": "x"})]),
        (
            'Bearer realm="https://a/t",service="s, t",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://a/t",
                        "service": "s, t",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        (
            'BEARER Realm = "q\\"uote" , Basic realm=plain',
            [Challenge("bearer", {"realm": 'q"uote'}), Challenge("basic", {"realm": "plain"})],
        ),
        ("Negotiate", [Challenge("negotiate")]),
        ("", []),
        ('"', []),
        ('Bearer realm="never ends', [Challenge("bearer")]),
    ],
)
def test_challenges(header: str, expected: list[Challenge]) -> None:
    assert parse_challenges([header]) == expected


def test_hostile_challenge_is_read_at_once() -> None:
    parse_challenges(["Bearer " + 'a="' * 100_000, "," * 100_000, " " * 100_000])


def test_endpoints_of_docker_io() -> None:
    options = RegistryOptions(mirrors=("http://127.0.0.1:5000/", "https://mirror.example"))
    bases = [(each.base, each.is_mirror) for each in options.endpoints("docker.io")]
    assert bases == [
        ("http://127.0.0.1:5000", True),
        ("https://mirror.example", True),
        ("https://registry-1.docker.io", False),
    ]
    pushed = [each.base for each in options.endpoints("docker.io", is_push=True)]
    assert pushed == ["https://registry-1.docker.io"]


@pytest.mark.parametrize(
    ("domain", "is_insecure"),
    [
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("localhost:5000", True),
        ("registry.lan:5000", True),
        ("registry.lan:5001", False),
        ("other.lan:77", True),
        ("10.1.2.3:5000", True),
        ("11.1.2.3:5000", False),
        ("registry.example", False),
    ],
)
def test_where_certificates_are_not_checked(domain: str, is_insecure: bool) -> None:
    options = RegistryOptions(insecure=("registry.lan:5000", "10.0.0.0/8", "other.lan"))
    assert options.is_insecure(domain) is is_insecure
    schemes = [
        (each.base.partition(":")[0], each.is_verified) for each in options.endpoints(domain)
    ]
    expected = [("https", False), ("http", True)] if is_insecure else [("https", True)]
    assert schemes == expected


@pytest.mark.parametrize(
    "text",
    ["mirror.example", "ftp://x", "https://", "https://a:b@c", "https://a/path", "http://a?b"],
)
def test_mirrors_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid mirror"):
        parse_mirrors(text)


def test_lists_of_settings() -> None:
    assert parse_mirrors("https://a, http://b:5000/") == ("https://a", "http://b:5000/")
    assert parse_insecure(" a:5000,10.0.0.0/8 ") == ("a:5000", "10.0.0.0/8")
    assert parse_mirrors("") == parse_insecure("") == ()
    for wrong in ("http://a", "10.0.0.1/8", "a/b"):
        with pytest.raises(InvalidArgument, match="insecure registry"):
            parse_insecure(wrong)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux", "linux/amd64"),
        ("arm64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("armhf", "linux/arm/v7"),
        ("Linux/X86_64", "linux/amd64"),
        ("windows", "windows/amd64"),
    ],
)
def test_platforms(text: str, expected: str) -> None:
    assert str(Platform.parse(text, default_architecture="amd64")) == expected


@pytest.mark.parametrize("text", ["", "/", "a/b/c/d", "linux/", "linux/amd 64", "../x"])
def test_platforms_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument):
        Platform.parse(text, default_architecture="amd64")


def index(*platforms: str) -> Document:
    entries = []
    for number, text in enumerate(platforms):
        system, architecture, *variant = text.split("/")
        platform = {"os": system, "architecture": architecture}
        platform |= {"variant": variant[0]} if variant else {}
        entries.append(
            {"mediaType": "x", "digest": f"sha256:{number:064x}", "size": 1, "platform": platform}
        )
    data = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    return read_document(data, digest_of(data), INDEX, Reference.parse("app"))


@pytest.mark.parametrize(
    ("offered", "wanted", "place"),
    [
        (("linux/arm64", "linux/amd64"), "linux/amd64", 1),
        (("linux/arm/v6", "linux/arm/v7"), "linux/arm/v7", 1),
        (("linux/arm", "linux/arm/v6"), "linux/arm/v7", 0),
        (("linux/arm64/v8",), "linux/arm64", 0),
        (("unknown/unknown", "linux/amd64"), "linux/amd64", 1),
        (("linux/amd64/v3", "linux/amd64"), "linux/amd64", 1),
    ],
)
def test_choice_by_platform(offered: tuple[str, ...], wanted: str, place: int) -> None:
    chosen = choose(index(*offered), Platform.parse(wanted, default_architecture="amd64"))
    assert chosen.digest.hex == f"{place:064x}"


def test_no_platform_fits() -> None:
    for offered in (("linux/arm64",), ("windows/amd64",), ("linux/amd64/v3",), ()):
        with pytest.raises(RegistryLacks, match="no matching manifest for linux/amd64 in the"):
            choose(index(*offered), Platform("linux", "amd64"))


def test_index_without_a_list() -> None:
    data = b'{"schemaVersion":2,"manifests":7}'
    document = read_document(data, digest_of(data), INDEX, Reference.parse("app"))
    with pytest.raises(CorruptData):
        choose(document, Platform("linux", "amd64"))


def test_refusals_with_a_code() -> None:
    body = json.dumps({"errors": [{"code": "NAME_UNKNOWN", "message": "no such\nname"}]}).encode()
    error = refusal("GET", "http://r/v2/x", 404, body)
    assert error.message == "name unknown: no such name"
    said = pull_refusal(error, "app", "app:1").message
    assert said == "repository app not found: name unknown: no such name"
    assert push_refusal(error) is error


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"errors":[]}', b'{"errors":[{"code":7}]}']
)
def test_refusals_without_one(body: bytes) -> None:
    error = refusal("GET", "http://r/v2/x", 500, body)
    assert error.message == (
        'Get "http://r/v2/x": received unexpected HTTP status: 500 Internal Server Error'
    )
    assert refusal("HEAD", "http://r", 799, body).message.endswith("status: 799")
    missing = pull_refusal(refusal("GET", "http://r", 404, body), "app", "app:1")
    assert missing.message == "manifest for app:1 not found: manifest unknown: manifest unknown"
