"""The journal of events."""

from dataclasses import replace
from typing import Any, cast

from sqlalchemy import Row, Table, func, select

from app.db.codec import decode_attributes, encode_attributes
from app.db.database import ReadSession
from app.db.models import EventRow
from app.db.rows import affected_rows
from app.domain.event import Event, EventType

_TABLE = cast(Table, EventRow.__table__)
_APPEND = _TABLE.insert().returning(_TABLE.c.id)


class EventRepository:
    """Reads with any session; `append` and `prune` need a WriteSession."""

    def __init__(self, session: ReadSession) -> None:
        self._session = session

    async def append(self, event: Event) -> Event:
        """Record an event and return it with its id; the id given is ignored."""
        columns = {
            "type": str(event.type),
            "action": event.action,
            "actor_id": event.actor_id,
            "actor_name": event.actor_name,
            "time_ns": event.time_ns,
            "initiator": event.initiator,
            "attributes": encode_attributes(event.attributes),
            "subject": encode_attributes(event.subject),
        }
        event_id = (await self._session.execute(_APPEND, columns)).scalar_one()
        return replace(event, id=event_id)

    async def after(self, event_id: int, *, limit: int = 100) -> list[Event]:
        """Oldest first: at most `limit` that came after `event_id`."""
        query = select(_TABLE).where(_TABLE.c.id > event_id).order_by(_TABLE.c.id).limit(limit)
        return [_to_event(row) for row in await self._session.execute(query)]

    async def since(self, time_ns: int, *, after_id: int, up_to_id: int, limit: int) -> list[Event]:
        """Oldest first: at most `limit` of that time or later, with ids between the two."""
        query = (
            select(_TABLE)
            .where(_TABLE.c.id > after_id, _TABLE.c.id <= up_to_id, _TABLE.c.time_ns >= time_ns)
            .order_by(_TABLE.c.id)
            .limit(limit)
        )
        return [_to_event(row) for row in await self._session.execute(query)]

    async def list(
        self, *, limit: int = 100, before_id: int | None = None, actor_id: str | None = None
    ) -> list[Event]:
        """Newest first: at most `limit`, older than `before_id`, about `actor_id`."""
        query = select(_TABLE).order_by(_TABLE.c.id.desc()).limit(limit)
        if before_id is not None:
            query = query.where(_TABLE.c.id < before_id)
        if actor_id is not None:
            query = query.where(_TABLE.c.actor_id == actor_id)
        return [_to_event(row) for row in await self._session.execute(query)]

    async def last_id(self) -> int:
        """Id of the newest event, 0 if there is none."""
        return await self._session.scalar(select(func.max(_TABLE.c.id))) or 0

    async def prune(self, keep: int) -> int:
        """Delete all but the newest `keep` events; returns how many went."""
        statement = _TABLE.delete()
        if keep > 0:
            oldest_kept = (
                select(_TABLE.c.id)
                .order_by(_TABLE.c.id.desc())
                .offset(keep - 1)
                .limit(1)
                .scalar_subquery()
            )
            statement = statement.where(_TABLE.c.id < oldest_kept)
        return affected_rows(await self._session.execute(statement))


def _to_event(row: Row[*tuple[Any, ...]]) -> Event:
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
