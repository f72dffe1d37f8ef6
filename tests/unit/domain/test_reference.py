"""References by the rules of distribution/reference."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import CorruptData, InvalidArgument
from app.domain.reference import Digest, Reference

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("team/app", "docker.io/team/app:latest", "team/app:latest"),
        ("library/team/app", "docker.io/library/team/app:latest", "library/team/app:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("registry:5000/app", "registry:5000/app:latest", "registry:5000/app:latest"),
        ("a.example/b/c_d--e.f:T_1.x-y", "a.example/b/c_d--e.f:T_1.x-y", None),
        ("[::1]:5000/app:1", "[::1]:5000/app:1", None),
        ("Team/app", "Team/app:latest", "Team/app:latest"),  # upper case can only be a host
        (f"busybox@sha256:{HEX}", f"docker.io/library/busybox@sha256:{HEX}", None),
        (f"busybox:1@sha256:{HEX}", f"docker.io/library/busybox:1@sha256:{HEX}", None),
    ],
)
def test_reference_parses(text: str, canonical: str, familiar: str | None) -> None:
    reference = Reference.parse(text)
    assert str(reference) == canonical
    if familiar is not None:
        assert reference.familiar == familiar
    assert Reference.parse(reference.familiar) == reference
    assert Reference.parse(canonical) == reference


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "busybox ", "Busybox", "busy box", "a//b", "/a", "a/", "-a", "a-", "a..b", "a___b",
        "busybox:", "busybox:-x", "busybox:" + "x" * 129, "busybox:é", "büsybox", "a/b:c/d",
        "busybox@sha256:12", f"busybox@sha512:{HEX}", f"busybox@sha256:{HEX.upper()}", HEX,
        "host:port/app", "http://a.example/b", "x" * 256, "busybox\n", "busybox:1\n", "..",
        "a/../b", "a\0b", "bad_host.example/x",
    ],
)  # fmt: skip
def test_reference_refuses(text: str) -> None:
    with pytest.raises(InvalidArgument):
        Reference.parse(text)


def test_reference_error_carries_text() -> None:
    with pytest.raises(InvalidArgument, match=r"repository name \(library/Busybox\) must be lower"):
        Reference.parse("Busybox")
    with pytest.raises(InvalidArgument, match="'a b'"):
        Reference.parse("a b")


def test_reference_error_is_bounded() -> None:
    with pytest.raises(InvalidArgument) as caught:
        Reference.parse("A" * 100_000)
    assert len(caught.value.message) < 400


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_reference_any_text_parses_or_is_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidArgument:
        return
    assert Reference.parse(str(reference)) == reference


def test_digest_round_trip() -> None:
    digest = Digest.parse(f"sha256:{HEX}")
    assert str(digest) == f"sha256:{HEX}"
    assert digest.short == HEX[:12]


@pytest.mark.parametrize("value", [None, 1, "", HEX, "sha256:", f"sha256:{HEX}0", f"md5:{HEX}"])
def test_digest_refuses(value: object) -> None:
    with pytest.raises(CorruptData, match=r"^layer "):
        Digest.parse(value, what="layer")
