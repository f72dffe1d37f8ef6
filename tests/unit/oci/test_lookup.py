"""Finding images as Docker does."""

import pytest

from app.domain.image import Image, ImageConfig, ImageNotFound
from app.domain.reference import Reference
from app.oci.lookup import find_image

MANIFEST = "sha256:" + "9" * 64


def image(digits: str, *names: str) -> Image:
    references = tuple(Reference.parse(name) for name in names)
    image_id = "sha256:" + digits.ljust(64, "0")
    return Image(image_id, references, ImageConfig(), None, "amd64", "linux", (), 0, MANIFEST)


A = image("abc1", "busybox", "registry:5000/app:2")
B = image("abc2", "cafe:latest")
C = image("cafe")
IMAGES = [A, B, C]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("busybox", A),
        ("docker.io/library/busybox:latest", A),
        ("registry:5000/app:2", A),
        (A.id, A),
        (A.id.removeprefix("sha256:"), A),
        (A.short_id, A),
        ("abc2", B),
        ("sha256:abc2", B),
        ("cafe", B),  # a name goes before an id
        ("cafe0", C),
        (f"busybox@{MANIFEST}", A),
    ],
)
def test_find_image(name: str, expected: Image) -> None:
    assert find_image(IMAGES, name)[0] == expected


def test_find_image_tells_by_which_name() -> None:
    assert find_image(IMAGES, "busybox")[1] == Reference.parse("busybox")
    assert find_image(IMAGES, A.id)[1] is None


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("nginx", "nginx:latest"),
        ("busybox:2", "busybox:2"),
        ("Bad Name", "Bad Name"),
        ("", ""),
        ("f" * 64, "f" * 64),
        (f"nginx@{MANIFEST}", f"nginx@{MANIFEST}"),
    ],
)
def test_find_image_missing(name: str, shown: str) -> None:
    with pytest.raises(ImageNotFound) as caught:
        find_image(IMAGES, name)
    assert caught.value.message == f"No such image: {shown}"


def test_find_image_ambiguous_prefix() -> None:
    with pytest.raises(ImageNotFound) as caught:
        find_image(IMAGES, "abc")
    assert "2 images" in caught.value.advice
