"""API tokens, and that neither theirs nor any other secret is stored."""

import sqlite3

import pytest

from app.core.errors import InvalidFields, NotFound
from app.db.database import Database
from app.domain.account import TokenIdentity, User
from app.services.accounts import AccountService
from tests.unit.services.accounts.lab import PASSWORD, Clock


async def test_token_of_a_user(accounts: AccountService, ann: User, clock: Clock) -> None:
    token = await accounts.create_token(" ci ", "ann")
    assert token.secret.startswith("slw_")
    assert await accounts.authenticate_token(token.secret) == TokenIdentity("ci", "ann")
    (listed,) = await accounts.list_tokens()
    assert (listed.id, listed.name, listed.user_name) == (token.id, "ci", "ann")
    assert listed.last_used_at_ns == clock.ns()


async def test_token_of_the_machine(accounts: AccountService) -> None:
    token = await accounts.create_token("stop")
    assert await accounts.authenticate_token(token.secret) == TokenIdentity("stop", None)


@pytest.mark.parametrize("by_name", [True, False], ids=["name", "id"])
async def test_revoked_token_is_nobody(accounts: AccountService, by_name: bool) -> None:
    token = await accounts.create_token("ci")
    other = await accounts.create_token("other")
    await accounts.revoke_token(token.name if by_name else token.id)
    assert await accounts.authenticate_token(token.secret) is None
    assert await accounts.authenticate_token(other.secret) is not None
    for ref in (token.name if by_name else token.id, "\udcff"):
        with pytest.raises(NotFound, match="No such token"):
            await accounts.revoke_token(ref)


@pytest.mark.parametrize("bearer", ["", "slw_", "slw_x", "x", "slw_\ud800", "slw_\0"])
async def test_unknown_token_is_nobody(accounts: AccountService, bearer: str) -> None:
    await accounts.create_token("ci")
    assert await accounts.authenticate_token(bearer) is None


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a" * 65, "-a"])
async def test_token_name_is_checked(accounts: AccountService, name: str) -> None:
    with pytest.raises(InvalidFields):
        await accounts.create_token(name)


async def test_no_secret_is_in_the_database(
    accounts: AccountService, ann: User, database: Database
) -> None:
    session = await accounts.sign_in("ann", PASSWORD, client="10.0.0.1")
    token = await accounts.create_token("ci", "ann")
    connection = sqlite3.connect(database.path)
    dump = "\n".join(connection.iterdump())
    connection.close()
    for secret in (PASSWORD, session.token, session.csrf_token, token.secret):
        assert secret not in dump
    assert "$argon2id$" in dump
