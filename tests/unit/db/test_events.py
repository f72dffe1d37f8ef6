import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.errors import CorruptData
from app.db.codec import decode_attributes
from app.db.database import Database
from app.db.repositories.events import EventRepository
from app.domain.event import Event, EventType

CLEAN_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
ANY_TEXT = st.text(st.characters())


def event(number: int, actor_id: str = "one") -> Event:
    return Event(EventType.CONTAINER, "start", actor_id, "box", time_ns=number)


async def append(database: Database, *events: Event) -> list[int]:
    async with database.write() as session:
        return [(await EventRepository(session).append(entry)).id for entry in events]


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.builds(
        Event,
        type=st.sampled_from(EventType),
        action=CLEAN_TEXT,
        actor_id=CLEAN_TEXT,
        actor_name=CLEAN_TEXT,
        time_ns=st.integers(-(2**63), 2**63 - 1),
        initiator=CLEAN_TEXT,
        attributes=st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=4),
    )
)
async def test_event_round_trip(database: Database, entry: Event) -> None:
    async with database.write() as session:
        stored = await EventRepository(session).append(entry)
    async with database.read() as reader:
        assert await EventRepository(reader).list(limit=1) == [stored]


async def test_list_pages_backwards(database: Database) -> None:
    ids = await append(database, *(event(number) for number in range(5)))
    async with database.read() as session:
        repository = EventRepository(session)
        first = await repository.list(limit=2)
        second = await repository.list(limit=10, before_id=first[-1].id)
    assert [entry.id for entry in (*first, *second)] == ids[::-1]


async def test_list_of_one_actor(database: Database) -> None:
    await append(database, event(1, "one"), event(2, "two"), event(3, "one"))
    async with database.read() as session:
        found = await EventRepository(session).list(actor_id="one")
    assert [entry.time_ns for entry in found] == [3, 1]


async def test_after_is_oldest_first(database: Database) -> None:
    ids = await append(database, *(event(number) for number in range(5)))
    async with database.read() as session:
        found = await EventRepository(session).after(ids[1], limit=2)
        assert [entry.id for entry in found] == ids[2:4]
        assert await EventRepository(session).after(ids[-1]) == []
        assert await EventRepository(session).last_id() == ids[-1]


async def test_prune_keeps_the_newest(database: Database) -> None:
    ids = await append(database, *(event(number) for number in range(5)))
    async with database.write() as session:
        assert await EventRepository(session).prune(keep=2) == 3
        assert [entry.id for entry in await EventRepository(session).list()] == ids[:2:-1]
        assert await EventRepository(session).prune(keep=9) == 0


async def test_ids_are_never_used_again(database: Database) -> None:
    ids = await append(database, event(1), event(2))
    async with database.write() as session:
        assert await EventRepository(session).prune(keep=0) == 2
        assert await EventRepository(session).last_id() == 0
    assert (await append(database, event(3)))[0] > ids[-1]


async def test_text_that_no_database_holds_is_cleaned(database: Database) -> None:
    odd = Event(EventType.IMAGE, "ta\0g", "\ud800", "\udcff", time_ns=1, initiator="\0")
    async with database.write() as session:
        await EventRepository(session).append(odd)
        (stored,) = await EventRepository(session).list(actor_id="\ud800")
    assert stored.action == "ta\ufffdg"
    assert (stored.actor_id, stored.actor_name, stored.initiator) == ("\ufffd",) * 3


@pytest.mark.parametrize("encoded", ["", "3", "[]", "{"])
def test_attributes_of_another_shape_are_corrupt(encoded: str) -> None:
    with pytest.raises(CorruptData, match="attributes"):
        decode_attributes(encoded)
