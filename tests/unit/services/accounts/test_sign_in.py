"""Signing in by password, and the throttle on attempts."""

import asyncio
import sqlite3

import pytest
from argon2 import PasswordHasher

from app.core.errors import TooManyRequests, Unauthenticated
from app.db.database import Database
from app.domain.account import User
from app.services.accounts import AccountService
from tests.unit.services.accounts.lab import PASSWORD, Clock, sign_in_wrongly


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
