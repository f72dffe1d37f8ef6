"""Containers by id, prefix and name."""

import re
from collections.abc import Collection
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.core.errors import Conflict, InvalidArgument, NotFound
from app.db.codec import decode_boot_stages, decode_config, encode_boot_stages, encode_config
from app.db.database import ReadSession
from app.db.models import ContainerRow
from app.db.rows import affected_rows
from app.domain.container import Container, ContainerState

_HEX = re.compile(r"[0-9a-f]{1,64}")
_COLUMNS = tuple(ContainerRow.__table__.columns)
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
            await self._session.execute(insert(ContainerRow).values(**_to_columns(container)))
        except IntegrityError as error:
            raise Conflict(
                f"A container with id {container.id} or name {container.name} was just made"
            ) from error

    async def get(self, container_id: str) -> Container:
        """The container with this full id.

        Raises:
            NotFound: There is none.
        """
        row = await self._session.scalar(
            select(ContainerRow).where(ContainerRow.id == container_id)
        )
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
        by_key = select(ContainerRow).where((ContainerRow.id == ref) | (ContainerRow.name == name))
        rows = list(await self._session.scalars(by_key))
        rows.sort(key=lambda row: row.id != ref)
        if not rows and _HEX.fullmatch(ref):
            by_prefix = (
                select(ContainerRow)
                .where(ContainerRow.id >= ref, ContainerRow.id < ref + _AFTER_HEX)
                .limit(2)
            )
            rows = list(await self._session.scalars(by_prefix))
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
        # Plain rows: entities of the ORM cost more than all the rest of a long list.
        query = select(*_COLUMNS).order_by(ContainerRow.created_at_ns.desc(), ContainerRow.id)
        if states is not None:
            query = query.where(ContainerRow.state.in_([str(state) for state in states]))
        return [_to_container(row) for row in await self._session.execute(query)]

    async def count_by_state(self) -> dict[ContainerState, int]:
        """How many containers are in each state; states without any are absent."""
        query = select(ContainerRow.state, func.count()).group_by(ContainerRow.state)
        return {ContainerState(state): count for state, count in await self._session.execute(query)}

    async def save(self, container: Container) -> None:
        """Replace the record of a container that exists.

        Raises:
            NotFound: It is gone.
            Conflict: Its new name is taken (Docker's text).
        """
        await self._check_name_free(container)
        columns = _to_columns(container)
        del columns["id"]
        statement = update(ContainerRow).where(ContainerRow.id == container.id).values(**columns)
        try:
            saved = affected_rows(await self._session.execute(statement))
        except IntegrityError as error:
            raise Conflict(f"The name {container.name} was just taken") from error
        if not saved:
            raise NotFound(f"No such container: {container.id}")

    async def delete(self, container_id: str) -> None:
        """Forget a container.

        Raises:
            NotFound: It is gone already.
        """
        statement = delete(ContainerRow).where(ContainerRow.id == container_id)
        if not affected_rows(await self._session.execute(statement)):
            raise NotFound(f"No such container: {container_id}")

    async def _check_name_free(self, container: Container) -> None:
        holder_id = await self._session.scalar(
            select(ContainerRow.id).where(
                ContainerRow.name == container.name, ContainerRow.id != container.id
            )
        )
        if holder_id is not None:
            raise Conflict(
                f'Conflict. The container name "/{container.name}" is already in use by container '
                f'"{holder_id}". You have to remove (or rename) that container to be able to reuse '
                "that name."
            )


def _to_columns(container: Container) -> dict[str, Any]:
    return {
        "id": container.id,
        "name": container.name,
        "state": str(container.state),
        "image_id": container.image_id,
        "created_at_ns": container.created_at_ns,
        "config": encode_config(container.config),
        "pid": container.pid,
        "exit_code": container.exit_code,
        "oom_killed": container.oom_killed,
        "error": container.error,
        "started_at_ns": container.started_at_ns,
        "finished_at_ns": container.finished_at_ns,
        "stopped_by_user": container.stopped_by_user,
        "restart_count": container.restart_count,
        "vm_id": container.vm_id,
        "boot_stages": encode_boot_stages(container.boot_stages),
    }


def _to_container(row: ContainerRow | Row[Any]) -> Container:
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
