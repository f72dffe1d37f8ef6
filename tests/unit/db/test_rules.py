"""Rules of the database layer that no type checker sees."""

import re
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from app.db import database as database_module
from app.db.database import Database, ReadSession
from app.db.repositories.accounts import AccountRepository
from app.db.repositories.containers import ContainerRepository
from app.db.repositories.events import EventRepository
from app.domain.container import Container, ContainerConfig
from app.domain.event import Event, EventType

APP = Path(database_module.__file__).parents[1]
MAY_COMMIT = {APP / "db" / "migrate.py"}  # one transaction of Alembic's; Database uses begin()


def test_nobody_commits_but_the_database() -> None:
    commits = {
        path
        for path in APP.rglob("*.py")
        if re.search(r"\.(commit|rollback)\(\)", path.read_text())
    }
    assert commits == MAY_COMMIT


def test_only_the_database_layer_knows_sqlalchemy() -> None:
    found = {
        path
        for path in APP.rglob("*.py")
        if re.search(r"^\s*(from|import) sqlalchemy", path.read_text(), re.MULTILINE)
    }
    assert {path for path in found if APP / "db" not in path.parents} == set()
    assert APP / "db" / "models.py" in found


@pytest.mark.parametrize("count", [1, 50])
async def test_lists_take_one_query_however_many_rows(database: Database, count: int) -> None:
    async with database.write() as session:
        for number in range(count):
            await ContainerRepository(session).add(
                Container(f"{number:064x}", f"box-{number}", "i", ContainerConfig("i"), number)
            )
            await EventRepository(session).append(Event(EventType.HOST, "a", "b", "c", number))
            user_id = await AccountRepository(session).add_user(f"user{number}", "h", at_ns=1)
            await AccountRepository(session).add_token("t", f"{number}", user_id, at_ns=1)

    async def lists(session: ReadSession) -> list[int]:
        return [
            len(await ContainerRepository(session).list()),
            len(await EventRepository(session).list(limit=100)),
            len(await AccountRepository(session).list_users()),
            len(await AccountRepository(session).list_tokens()),
        ]

    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        async with database.read() as reader:
            assert await lists(reader) == [count] * 4
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert len([one for one in statements if one.startswith("SELECT")]) == 4
