import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from app.core.errors import (
    Conflict,
    InvalidFields,
    NotFound,
    PermissionDenied,
    TooManyRequests,
    Unauthenticated,
)
from app.db.database import Database
from app.db.migrate import upgrade_database
from app.domain.account import (
    SECOND_NS,
    SESSION_IDLE_S,
    SESSION_LIFETIME_S,
    SETUP_LINK_LIFETIME_S,
    TokenIdentity,
    User,
)
from app.services import accounts as accounts_module
from app.services.accounts import AccountService

PASSWORD = "correct horse"
HOUR_S = 3600


@dataclass
class Clock:
    now_s: int = 1_800_000_000

    def ns(self) -> int:
        return self.now_s * SECOND_NS

    def s(self) -> float:
        return float(self.now_s)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    path = tmp_path / "slipway.db"
    upgrade_database(path)
    database = Database(path)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def accounts(database: Database, clock: Clock) -> AccountService:
    hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    return AccountService(database, clock_ns=clock.ns, clock_s=clock.s, hasher=hasher)


@pytest.fixture
async def ann(accounts: AccountService) -> User:
    return await accounts.add_user("ann", PASSWORD)


async def sign_in_wrongly(
    accounts: AccountService, name: str = "ann", client: str = "10.0.0.1"
) -> None:
    with pytest.raises(Unauthenticated):
        await accounts.sign_in(name, "wrong password", client=client)


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


@pytest.mark.parametrize("password", ["1234567890", "ååååååååå\u030a.", "  blanks  ", "x" * 1024])
async def test_password_needs_length_only(accounts: AccountService, password: str) -> None:
    await accounts.add_user("ann", password)
    await accounts.sign_in("ann", password, client="10.0.0.1")


async def test_password_typed_in_another_normal_form_fits(accounts: AccountService) -> None:
    await accounts.add_user("ann", "caf\u00e9 au lait")
    await accounts.sign_in("ann", "cafe\u0301 au lait", client="10.0.0.1")


@pytest.mark.parametrize("name", ["ann", " ANN "])
async def test_sign_in(accounts: AccountService, ann: User, name: str) -> None:
    session = await accounts.sign_in(name, PASSWORD, client="10.0.0.1")
    assert session.user_name == "ann"
    assert await accounts.authenticate_session(session.token) is not None


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ann", "correct hors"),
        ("ann", ""),
        ("ann", "correct horse "),
        ("ann", "\ud800" * 10),
        ("ann", "x" * 1_000_000),
        ("bob", PASSWORD),
        ("", PASSWORD),
        ("ann\0", PASSWORD),
        ("\ud800", PASSWORD),
    ],
    ids=["shorter", "empty", "longer", "surrogate", "huge", "no user", "no name", "nul", "odd"],
)
async def test_sign_in_refuses_without_saying_why(
    accounts: AccountService, ann: User, name: str, password: str
) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await accounts.sign_in(name, password, client="10.0.0.1")
    assert caught.value.message == "Name or password is wrong"


async def test_unknown_name_costs_one_hash_like_a_known_one(
    accounts: AccountService, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    verify = AccountService._verify_now

    def count(service: AccountService, stored_hash: str, password: str) -> bool:
        checked.append(stored_hash.rpartition("$")[0].rpartition("$")[0])
        return verify(service, stored_hash, password)

    monkeypatch.setattr(AccountService, "_verify_now", count)
    await sign_in_wrongly(accounts, "ann")
    await sign_in_wrongly(accounts, "nobody")
    assert checked == ["$argon2id$v=19$m=64,t=1,p=1"] * 2


async def test_sign_in_is_throttled_by_name_from_many_clients(
    accounts: AccountService, ann: User, clock: Clock
) -> None:
    for number in range(10):
        await sign_in_wrongly(accounts, client=f"10.0.0.{number}")
    with pytest.raises(TooManyRequests) as caught:
        await accounts.sign_in("ann", PASSWORD, client="10.0.1.1")
    assert caught.value.retry_after_s == 1
    clock.now_s += caught.value.retry_after_s
    await accounts.sign_in("ann", PASSWORD, client="10.0.1.1")


async def test_stranger_can_not_lock_a_user_out_for_long(
    accounts: AccountService, ann: User, clock: Clock
) -> None:
    for number in range(30):
        await sign_in_wrongly(accounts, client=f"10.0.0.{number}")
        clock.now_s += 30
    await accounts.sign_in("ann", PASSWORD, client="10.0.1.1")


async def test_sign_in_is_throttled_by_client_over_many_names(
    accounts: AccountService, ann: User, clock: Clock
) -> None:
    waits = []
    for number in range(16):
        await sign_in_wrongly(accounts, f"name{number}")
        if number >= 9:
            with pytest.raises(TooManyRequests) as caught:
                await accounts.sign_in("ann", PASSWORD, client="10.0.0.1")
            waits.append(caught.value.retry_after_s)
            clock.now_s += caught.value.retry_after_s
    assert waits == [1, 2, 4, 8, 16, 32, 64]
    await accounts.sign_in("ann", PASSWORD, client="10.0.0.2")


async def test_addresses_of_one_network_count_as_one_client(
    accounts: AccountService, ann: User
) -> None:
    for number in range(10):
        await sign_in_wrongly(accounts, f"name{number}", client=f"2001:db8::{number:x}:1")
    with pytest.raises(TooManyRequests):
        await accounts.sign_in("ann", PASSWORD, client="2001:db8::ffff")
    await accounts.sign_in("ann", PASSWORD, client="2001:db8:0:1::1")


async def test_attempts_at_once_are_all_counted(accounts: AccountService, ann: User) -> None:
    results = await asyncio.gather(
        *(accounts.sign_in("ann", f"wrong {n}", client="10.0.0.1") for n in range(40)),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, TooManyRequests)]
    assert len(refused) == 30


async def test_success_clears_the_throttle(accounts: AccountService, ann: User) -> None:
    for _ in range(3):
        for _ in range(8):
            await sign_in_wrongly(accounts)
        await accounts.sign_in("ann", PASSWORD, client="10.0.0.1")


async def test_throttle_is_bounded(
    accounts: AccountService, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.throttle.KEYS_KEPT", 5)
    for number in range(20):
        await sign_in_wrongly(accounts, f"name{number}", client=f"client {number}")
    assert len(accounts._by_name._attempts) == 5
    assert len(accounts._by_client._attempts) == 5


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


async def test_weak_hash_is_replaced_at_sign_in(
    accounts: AccountService, ann: User, database: Database
) -> None:
    stronger = AccountService(
        database, hasher=PasswordHasher(time_cost=2, memory_cost=64, parallelism=1)
    )
    await stronger.sign_in("ann", PASSWORD, client="10.0.0.1")
    connection = sqlite3.connect(database.path)
    (stored,) = connection.execute("SELECT password_hash FROM users").fetchone()
    connection.close()
    assert "t=2" in stored
    await stronger.sign_in("ann", PASSWORD, client="10.0.0.1")


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


def count(database: Database, table: str) -> int:
    connection = sqlite3.connect(database.path)
    (found,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    connection.close()
    return int(found)
