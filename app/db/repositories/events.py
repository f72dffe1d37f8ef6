"""The journal of events."""

from dataclasses import replace

from sqlalchemy import delete, func, insert, select

from app.db.codec import decode_attributes, encode_attributes
from app.db.database import ReadSession
from app.db.models import EventRow
from app.db.rows import affected_rows
from app.domain.event import Event, EventType


class EventRepository:
    """Reads with any session; `append` and `prune` need a WriteSession."""

    def __init__(self, session: ReadSession) -> None:
        self._session = session

    async def append(self, event: Event) -> Event:
        """Record an event and return it with its id; the id given is ignored."""
        statement = (
            insert(EventRow)
            .values(
                type=str(event.type),
                action=event.action,
                actor_id=event.actor_id,
                actor_name=event.actor_name,
                time_ns=event.time_ns,
                initiator=event.initiator,
                attributes=encode_attributes(event.attributes),
                subject=encode_attributes(event.subject),
            )
            .returning(EventRow.id)
        )
        event_id = (await self._session.execute(statement)).scalar_one()
        return replace(event, id=event_id)

    async def after(self, event_id: int, *, limit: int = 100) -> list[Event]:
        """Oldest first: at most `limit` that came after `event_id`."""
        query = select(EventRow).where(EventRow.id > event_id).order_by(EventRow.id).limit(limit)
        return [_to_event(row) for row in await self._session.scalars(query)]

    async def since(self, time_ns: int, *, after_id: int, up_to_id: int, limit: int) -> list[Event]:
        """Oldest first: at most `limit` of that time or later, with ids between the two."""
        query = (
            select(EventRow)
            .where(EventRow.id > after_id, EventRow.id <= up_to_id, EventRow.time_ns >= time_ns)
            .order_by(EventRow.id)
            .limit(limit)
        )
        return [_to_event(row) for row in await self._session.scalars(query)]

    async def list(
        self, *, limit: int = 100, before_id: int | None = None, actor_id: str | None = None
    ) -> list[Event]:
        """Newest first: at most `limit`, older than `before_id`, about `actor_id`."""
        query = select(EventRow).order_by(EventRow.id.desc()).limit(limit)
        if before_id is not None:
            query = query.where(EventRow.id < before_id)
        if actor_id is not None:
            query = query.where(EventRow.actor_id == actor_id)
        return [_to_event(row) for row in await self._session.scalars(query)]

    async def last_id(self) -> int:
        """Id of the newest event, 0 if there is none."""
        return await self._session.scalar(select(func.max(EventRow.id))) or 0

    async def prune(self, keep: int) -> int:
        """Delete all but the newest `keep` events; returns how many went."""
        statement = delete(EventRow)
        if keep > 0:
            oldest_kept = (
                select(EventRow.id)
                .order_by(EventRow.id.desc())
                .offset(keep - 1)
                .limit(1)
                .scalar_subquery()
            )
            statement = statement.where(EventRow.id < oldest_kept)
        return affected_rows(await self._session.execute(statement))


def _to_event(row: EventRow) -> Event:
    return Event(
        type=EventType(row.type),
        action=row.action,
        actor_id=row.actor_id,
        actor_name=row.actor_name,
        time_ns=row.time_ns,
        initiator=row.initiator,
        attributes=decode_attributes(row.attributes),
        subject=decode_attributes(row.subject),
        id=row.id,
    )
