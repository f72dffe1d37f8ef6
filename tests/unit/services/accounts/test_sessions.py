"""Sessions: how long they last, what ends them, how many there are."""

import asyncio
import sqlite3

import pytest

from app.db.database import Database
from app.domain.account import SECOND_NS, SESSION_IDLE_S, SESSION_LIFETIME_S, User
from app.services import accounts as accounts_module
from app.services.accounts import AccountService
from tests.unit.services.accounts.lab import PASSWORD, Clock, sign_in_wrongly

HOUR_S = 3600


async def test_session_slides_and_ends_when_idle(
    accounts: AccountService, ann: User, clock: Clock
) -> None:
    session = await accounts.sign_in("ann", PASSWORD, client="10.0.0.1")
    for _ in range(3):
        clock.now_s += SESSION_IDLE_S - 1
        found = await accounts.authenticate_session(session.token)
        assert found is not None
        assert found.expires_at_ns == (clock.now_s + SESSION_IDLE_S) * SECOND_NS
    clock.now_s += SESSION_IDLE_S
    assert await accounts.authenticate_session(session.token) is None


async def test_session_ends_however_much_it_is_used(
    accounts: AccountService, ann: User, clock: Clock
) -> None:
    session = await accounts.sign_in("ann", PASSWORD, client="10.0.0.1")
    end_s = clock.now_s + SESSION_LIFETIME_S
    while clock.now_s + 12 * HOUR_S < end_s:
        clock.now_s += 12 * HOUR_S
        found = await accounts.authenticate_session(session.token)
        assert found is not None
        assert found.expires_at_ns <= end_s * SECOND_NS
    clock.now_s = end_s
    assert await accounts.authenticate_session(session.token) is None


async def test_session_use_is_not_written_each_time(
    accounts: AccountService, ann: User, clock: Clock, database: Database
) -> None:
    session = await accounts.sign_in("ann", PASSWORD, client="10.0.0.1")
    clock.now_s += 59
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # a write would wait
    assert await asyncio.wait_for(accounts.authenticate_session(session.token), 2) is not None
    other.close()


@pytest.mark.parametrize("token", ["", "x", "\ud800", "\0"])
async def test_unknown_session_is_nobody(accounts: AccountService, ann: User, token: str) -> None:
    assert await accounts.authenticate_session(token) is None


async def test_sign_out_ends_one_session(accounts: AccountService, ann: User) -> None:
    first = await accounts.sign_in("ann", PASSWORD, client="10.0.0.1")
    second = await accounts.sign_in("ann", PASSWORD, client="10.0.0.1")
    await accounts.sign_out(first.token)
    await accounts.sign_out(first.token)
    assert await accounts.authenticate_session(first.token) is None
    assert await accounts.authenticate_session(second.token) is not None
    assert first.csrf_token != second.csrf_token


async def test_ended_sessions_are_deleted_at_sign_in(
    accounts: AccountService, ann: User, clock: Clock, database: Database
) -> None:
    for _ in range(3):
        await accounts.sign_in("ann", PASSWORD, client="10.0.0.1")
    clock.now_s += SESSION_IDLE_S + 1
    await accounts.sign_in("ann", PASSWORD, client="10.0.0.1")
    assert count(database, "sessions") == 1


async def test_sessions_of_a_user_are_bounded(
    accounts: AccountService,
    ann: User,
    clock: Clock,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accounts_module, "SESSIONS_PER_USER", 2)
    sessions = []
    for _ in range(3):
        clock.now_s += 1
        sessions.append(await accounts.sign_in("ann", PASSWORD, client="10.0.0.1"))
    found = [await accounts.authenticate_session(session.token) for session in sessions]
    assert [session is not None for session in found] == [False, True, True]
    assert count(database, "sessions") == 2


async def test_new_password_ends_sessions_and_keeps_tokens(
    accounts: AccountService, ann: User
) -> None:
    session = await accounts.sign_in("ann", PASSWORD, client="10.0.0.1")
    token = await accounts.create_token("ci", "ann")
    await accounts.set_password("ann", "another password")
    assert await accounts.authenticate_session(session.token) is None
    assert await accounts.authenticate_token(token.secret) is not None
    await sign_in_wrongly(accounts)
    await accounts.sign_in("ann", "another password", client="10.0.0.1")


def count(database: Database, table: str) -> int:
    connection = sqlite3.connect(database.path)
    (found,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    connection.close()
    return int(found)
