"""A clock and a password, and a sign-in with another one."""

from dataclasses import dataclass

import pytest

from app.core.errors import Unauthenticated
from app.domain.account import SECOND_NS
from app.services.accounts import AccountService

PASSWORD = "correct horse"


@dataclass
class Clock:
    now_s: int = 1_800_000_000

    def ns(self) -> int:
        return self.now_s * SECOND_NS

    def s(self) -> float:
        return float(self.now_s)


async def sign_in_wrongly(
    accounts: AccountService, name: str = "ann", client: str = "10.0.0.1"
) -> None:
    with pytest.raises(Unauthenticated):
        await accounts.sign_in(name, "wrong password", client=client)
