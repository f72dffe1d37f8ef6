"""Docker's rules for removing images."""

import pytest

from app.core.errors import Conflict
from app.domain.image import Image, ImageConfig, ImageUser
from app.domain.reference import Reference
from app.oci.removal import RemovalPlan, plan_removal

ID = "sha256:" + "ab" * 32
ONE = Reference.parse("app:1")
TWO = Reference.parse("app:2")
OTHER = Reference.parse("other:1")
STOPPED = ImageUser("c0ffee" * 11, ID, is_running=False)
RUNNING = ImageUser("decade" * 11, ID, is_running=True)
FOREIGN = ImageUser("f" * 64, "sha256:" + "0" * 64, is_running=True)


def image(*references: Reference) -> Image:
    return Image(ID, references, ImageConfig(), None, "amd64", "linux", (), 0, "")


def test_removal_by_last_name_deletes() -> None:
    plan = plan_removal(image(ONE), ONE, force=False, users=[FOREIGN])
    assert plan == RemovalPlan((ONE,), is_deleted=True)


def test_removal_by_one_of_several_names_untags() -> None:
    plan = plan_removal(image(ONE, OTHER), ONE, force=False, users=[RUNNING])
    assert plan == RemovalPlan((ONE,), is_deleted=False)


@pytest.mark.parametrize("user", [STOPPED, RUNNING])
def test_removal_by_last_name_of_used_image_conflicts(user: ImageUser) -> None:
    with pytest.raises(Conflict) as caught:
        plan_removal(image(ONE), ONE, force=False, users=[user])
    assert caught.value.message == (
        'conflict: unable to remove repository reference "app:1" (must force) - container '
        f"{user.container_id[:12]} is using its referenced image abababababab"
    )


@pytest.mark.parametrize("user", [STOPPED, RUNNING])
def test_removal_by_force_of_used_image_only_untags(user: ImageUser) -> None:
    plan = plan_removal(image(ONE), ONE, force=True, users=[user])
    assert plan == RemovalPlan((ONE,), is_deleted=False)


def test_removal_by_id_takes_all_names_of_one_repository() -> None:
    plan = plan_removal(image(ONE, TWO), None, force=False, users=[])
    assert plan == RemovalPlan((ONE, TWO), is_deleted=True)


def test_removal_by_id_of_several_repositories_conflicts() -> None:
    with pytest.raises(Conflict) as caught:
        plan_removal(image(ONE, OTHER), None, force=False, users=[])
    assert caught.value.message == (
        "conflict: unable to delete abababababab (must be forced) - "
        "image is referenced in multiple repositories"
    )
    assert plan_removal(image(ONE, OTHER), None, force=True, users=[]).is_deleted


@pytest.mark.parametrize("force", [False, True])
def test_removal_by_id_of_running_image_conflicts(force: bool) -> None:
    with pytest.raises(Conflict, match=r"\(cannot be forced\) - image is being used by running"):
        plan_removal(image(ONE), None, force=force, users=[STOPPED, RUNNING])


def test_removal_by_id_of_stopped_image() -> None:
    with pytest.raises(Conflict, match=r"\(must be forced\) - image is being used by stopped"):
        plan_removal(image(ONE), None, force=False, users=[STOPPED])
    plan = plan_removal(image(ONE), None, force=True, users=[STOPPED])
    assert plan == RemovalPlan((ONE,), is_deleted=False)


def test_removal_of_leased_image_only_untags() -> None:
    for reference in (ONE, None):
        plan = plan_removal(image(ONE), reference, force=False, users=[], is_leased=True)
        assert plan == RemovalPlan((ONE,), is_deleted=False)


def test_removal_of_untagged_image_by_id() -> None:
    assert plan_removal(image(), None, force=False, users=[]) == RemovalPlan((), is_deleted=True)


def test_digests_go_with_the_last_tag_of_their_repository() -> None:
    digest = "sha256:" + "d" * 64
    names = ("app:1", "app:2", f"app@{digest}", "other:1", f"other@{digest}")
    both = image(*map(Reference.parse, names))
    plan = plan_removal(both, Reference.parse("app:1"), force=False, users=[])
    assert [item.familiar for item in plan.untag] == ["app:1"]
    last = image(*map(Reference.parse, names[1:]))
    plan = plan_removal(last, Reference.parse("app:2"), force=False, users=[])
    assert [item.familiar for item in plan.untag] == ["app:2", f"app@{digest}"]
    assert not plan.is_deleted
    only = image(*map(Reference.parse, names[3:]))
    plan = plan_removal(only, Reference.parse("other:1"), force=False, users=[])
    assert plan.is_deleted
    by_digest = plan_removal(both, Reference.parse(f"app@{digest}"), force=False, users=[])
    assert [item.familiar for item in by_digest.untag] == [f"app@{digest}"]
    assert not by_digest.is_deleted
