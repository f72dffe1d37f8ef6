"""Fixtures: accounts in a real database whose clock the test moves, and a user."""

import pytest
from argon2 import PasswordHasher

from app.db.database import Database
from app.domain.account import User
from app.services.accounts import AccountService
from tests.unit.services.accounts.lab import PASSWORD, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts(database: Database, clock: Clock) -> AccountService:
    hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    return AccountService(database, clock_ns=clock.ns, clock_s=clock.s, hasher=hasher)


@pytest.fixture
async def ann(accounts: AccountService) -> User:
    return await accounts.add_user("ann", PASSWORD)
