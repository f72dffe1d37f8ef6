"""Containers by id, prefix and name."""

import re
from collections.abc import Collection
from typing import Any, cast

from sqlalchemy import Row, Table, bindparam, func, select
from sqlalchemy.exc import IntegrityError

from app.core.errors import Conflict, InvalidArgument, NotFound
from app.db.codec import decode_boot_stages, decode_config, encode_boot_stages, encode_config
from app.db.database import ReadSession
from app.db.models import ContainerRow
from app.db.rows import affected_rows
from app.domain.container import Container, ContainerState

# Statements over the table, made once: entities, and statements made anew for each call, cost the
# engine most of what its record costs it.
_TABLE = cast(Table, ContainerRow.__table__)
_ALL = select(_TABLE).order_by(_TABLE.c.created_at_ns.desc(), _TABLE.c.id)
_BY_ID = select(_TABLE).where(_TABLE.c.id == bindparam("key"))
_BY_ID_OR_NAME = select(_TABLE).where(
    (_TABLE.c.id == bindparam("key")) | (_TABLE.c.name == bindparam("key_name"))
)
_BY_PREFIX = (
    select(_TABLE)
    .where(_TABLE.c.id >= bindparam("key"), _TABLE.c.id < bindparam("key_end"))
    .limit(2)
)
_HOLDER = select(_TABLE.c.id).where(
    _TABLE.c.name == bindparam("key_name"), _TABLE.c.id != bindparam("key")
)
_UPDATE = _TABLE.update().where(_TABLE.c.id == bindparam("key"))
_DELETE = _TABLE.delete().where(_TABLE.c.id == bindparam("key"))

_HEX = re.compile(r"[0-9a-f]{1,64}")
_AFTER_HEX = "g"  # sorts after every hex digit


class ContainerRepository:
    """Reads with any session; `add`, `save` and `delete` need a WriteSession."""

    def __init__(self, session: ReadSession) -> None:
        self._session = session

    async def add(self, container: Container) -> None:
        """Record a new container.

        Raises:
            Conflict: The name is taken (Docker's text).
        """
        await self._check_name_free(container)
        try:
            await self._session.execute(_TABLE.insert(), _to_columns(container))
        except IntegrityError as error:
            raise Conflict(
                f"A container with id {container.id} or name {container.name} was just made"
            ) from error

    async def get(self, container_id: str) -> Container:
        """The container with this full id.

        Raises:
            NotFound: There is none.
        """
        row = (await self._session.execute(_BY_ID, {"key": container_id})).first()
        if row is None:
            raise NotFound(f"No such container: {container_id}")
        return _to_container(row)

    async def find(self, ref: str) -> Container:
        """The container that `ref` means: a full id, else a name, else the only id it begins.

        Raises:
            NotFound: There is none.
            InvalidArgument: Several ids begin with it.
        """
        if not ref.isascii():  # no name or id is, and not every text can be asked for
            raise NotFound(f"No such container: {ref}")
        name = ref.removeprefix("/")
        keys = {"key": ref, "key_name": name}
        rows = list(await self._session.execute(_BY_ID_OR_NAME, keys))
        rows.sort(key=lambda row: row.id != ref)
        if not rows and _HEX.fullmatch(ref):
            bounds = {"key": ref, "key_end": ref + _AFTER_HEX}
            rows = list(await self._session.execute(_BY_PREFIX, bounds))
            if len(rows) > 1:
                raise InvalidArgument(
                    f"multiple IDs found with provided prefix: {ref}",
                    advice="Give more digits of the id, or the name.",
                )
        if not rows:
            raise NotFound(f"No such container: {ref}")
        return _to_container(rows[0])

    async def list(self, *, states: Collection[ContainerState] | None = None) -> list[Container]:
        """All containers, or those in one of these states; newest first."""
        query = _ALL
        if states is not None:
            query = query.where(_TABLE.c.state.in_([str(state) for state in states]))
        return [_to_container(row) for row in await self._session.execute(query)]

    async def count_by_state(self) -> dict[ContainerState, int]:
        """How many containers are in each state; states without any are absent."""
        query = select(ContainerRow.state, func.count()).group_by(ContainerRow.state)
        return {ContainerState(state): count for state, count in await self._session.execute(query)}

    async def save(self, container: Container, *, before: Container | None = None) -> None:
        """Replace the record of a container that exists.

        Args:
            container: What it is from now on.
            before: What was read in this transaction; what is the same in it is not written again.

        Raises:
            NotFound: It is gone.
            Conflict: Its new name is taken (Docker's text).
        """
        if before is None or before.name != container.name:
            await self._check_name_free(container)
        columns = _to_columns(container, before)
        columns["key"] = columns.pop("id")
        try:
            saved = affected_rows(await self._session.execute(_UPDATE, columns))
        except IntegrityError as error:
            raise Conflict(f"The name {container.name} was just taken") from error
        if not saved:
            raise NotFound(f"No such container: {container.id}")

    async def delete(self, container_id: str) -> None:
        """Forget a container.

        Raises:
            NotFound: It is gone already.
        """
        if not affected_rows(await self._session.execute(_DELETE, {"key": container_id})):
            raise NotFound(f"No such container: {container_id}")

    async def _check_name_free(self, container: Container) -> None:
        holder_id = await self._session.scalar(
            _HOLDER, {"key_name": container.name, "key": container.id}
        )
        if holder_id is not None:
            raise Conflict(
                f'Conflict. The container name "/{container.name}" is already in use by container '
                f'"{holder_id}". You have to remove (or rename) that container to be able to reuse '
                "that name."
            )


def _to_columns(container: Container, before: Container | None = None) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "id": container.id,
        "name": container.name,
        "state": str(container.state),
        "image_id": container.image_id,
        "created_at_ns": container.created_at_ns,
        "pid": container.pid,
        "exit_code": container.exit_code,
        "oom_killed": container.oom_killed,
        "error": container.error,
        "started_at_ns": container.started_at_ns,
        "finished_at_ns": container.finished_at_ns,
        "stopped_by_user": container.stopped_by_user,
        "restart_count": container.restart_count,
        "vm_id": container.vm_id,
    }
    if before is None or before.config is not container.config:
        columns["config"] = encode_config(container.config)
    if before is None or before.boot_stages is not container.boot_stages:
        columns["boot_stages"] = encode_boot_stages(container.boot_stages)
    return columns


def _to_container(row: Row[*tuple[Any, ...]]) -> Container:
    return Container(
        id=row.id,
        name=row.name,
        image_id=row.image_id,
        config=decode_config(row.config),
        created_at_ns=row.created_at_ns,
        state=ContainerState(row.state),
        pid=row.pid,
        exit_code=row.exit_code,
        oom_killed=row.oom_killed,
        error=row.error,
        started_at_ns=row.started_at_ns,
        finished_at_ns=row.finished_at_ns,
        stopped_by_user=row.stopped_by_user,
        restart_count=row.restart_count,
        vm_id=row.vm_id,
        boot_stages=decode_boot_stages(row.boot_stages),
    )
