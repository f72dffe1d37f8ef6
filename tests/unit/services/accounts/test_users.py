"""Users: the first one by a setup link, names and passwords they may have, their removal."""

import asyncio

import pytest

from app.core.errors import Conflict, InvalidFields, NotFound, PermissionDenied
from app.domain.account import SETUP_LINK_LIFETIME_S, User
from app.services.accounts import AccountService
from tests.unit.services.accounts.lab import PASSWORD, Clock


async def test_first_admin_is_signed_in(accounts: AccountService) -> None:
    assert await accounts.setup_required()
    token = await accounts.issue_setup_link()
    session = await accounts.create_first_admin(token, " Ann ", PASSWORD)
    assert not await accounts.setup_required()
    found = await accounts.authenticate_session(session.token)
    assert found is not None
    assert (found.user_name, found.csrf_token) == ("ann", session.csrf_token)
    assert found.token == ""


async def test_setup_link_works_once(accounts: AccountService) -> None:
    token = await accounts.issue_setup_link()
    await accounts.create_first_admin(token, "ann", PASSWORD)
    with pytest.raises(Conflict, match="already"):
        await accounts.create_first_admin(token, "bob", PASSWORD)
    with pytest.raises(Conflict, match="already"):
        await accounts.issue_setup_link()


async def test_setup_link_used_twice_at_once_makes_one_admin(accounts: AccountService) -> None:
    token = await accounts.issue_setup_link()
    results = await asyncio.gather(
        *(accounts.create_first_admin(token, name, PASSWORD) for name in ("ann", "bob")),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["Conflict", "Session"]
    assert len(await accounts.list_users()) == 1


async def test_setup_link_is_replaced_by_a_newer_one(accounts: AccountService) -> None:
    old = await accounts.issue_setup_link()
    new = await accounts.issue_setup_link()
    with pytest.raises(PermissionDenied, match="not valid"):
        await accounts.create_first_admin(old, "ann", PASSWORD)
    await accounts.create_first_admin(new, "ann", PASSWORD)


async def test_setup_link_expires(accounts: AccountService, clock: Clock) -> None:
    token = await accounts.issue_setup_link()
    clock.now_s += SETUP_LINK_LIFETIME_S
    with pytest.raises(PermissionDenied) as caught:
        await accounts.create_first_admin(token, "ann", PASSWORD)
    assert "prints a new link" in caught.value.advice


@pytest.mark.parametrize("token", ["", "x", "\ud800", "x" * 10_000])
async def test_wrong_setup_link_is_refused(accounts: AccountService, token: str) -> None:
    await accounts.issue_setup_link()
    with pytest.raises(PermissionDenied):
        await accounts.create_first_admin(token, "ann", PASSWORD)
    assert await accounts.setup_required()


@pytest.mark.parametrize(
    ("name", "password", "field"),
    [
        ("", PASSWORD, "name"),
        ("-ann", PASSWORD, "name"),
        ("ann smith", PASSWORD, "name"),
        ("ann\0", PASSWORD, "name"),
        ("a" * 65, PASSWORD, "name"),
        ("ann", "123456789", "password"),
        ("ann", "x" * 1025, "password"),
    ],
)
async def test_faulty_field_leaves_the_setup_link_valid(
    accounts: AccountService, name: str, password: str, field: str
) -> None:
    token = await accounts.issue_setup_link()
    with pytest.raises(InvalidFields) as caught:
        await accounts.create_first_admin(token, name, password)
    assert list(caught.value.faults) == [field]
    await accounts.create_first_admin(token, "ann", PASSWORD)


async def test_remove_user_ends_sessions_and_tokens(accounts: AccountService, ann: User) -> None:
    await accounts.add_user("bob", PASSWORD)
    session = await accounts.sign_in("ann", PASSWORD, client="10.0.0.1")
    token = await accounts.create_token("ci", "ann")
    await accounts.remove_user("ann")
    assert await accounts.authenticate_session(session.token) is None
    assert await accounts.authenticate_token(token.secret) is None
    assert [user.name for user in await accounts.list_users()] == ["bob"]


async def test_last_user_can_not_be_removed(accounts: AccountService, ann: User) -> None:
    with pytest.raises(Conflict, match="only one"):
        await accounts.remove_user("ann")


async def test_taken_name_is_refused(accounts: AccountService, ann: User) -> None:
    with pytest.raises(Conflict, match="exists already"):
        await accounts.add_user("ANN", PASSWORD)


async def test_unknown_user_is_named(accounts: AccountService, ann: User) -> None:
    with pytest.raises(NotFound, match="No such user: bob"):
        await accounts.remove_user("bob")
    with pytest.raises(NotFound, match="No such user: bob"):
        await accounts.set_password("bob", PASSWORD)
    with pytest.raises(NotFound, match="No such user: bob"):
        await accounts.create_token("ci", "bob")
