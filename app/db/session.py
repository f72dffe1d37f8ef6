"""A transaction as repositories use it: statement by statement, each in the session's thread."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NewType, TypeVar, TypeVarTuple, overload

from sqlalchemy import CursorResult, Executable, Result
from sqlalchemy.orm import Session
from sqlalchemy.sql.selectable import TypedReturnsRows

from app.db.thread import DatabaseThread

T = TypeVar("T")
Columns = TypeVarTuple("Columns")
Parameters = Mapping[str, Any]


class ReadSession:
    """One transaction; begun by its first statement, ended by the `Database` that made it.

    All that a statement gives is fetched in the thread, so what is given here waits for nothing.
    """

    def __init__(self, session: Session, thread: DatabaseThread) -> None:
        self._session = session
        self._thread = thread

    @overload
    async def execute(
        self, statement: TypedReturnsRows[*Columns], parameters: Parameters | None = None
    ) -> Result[*Columns]: ...

    @overload
    async def execute(
        self, statement: Executable, parameters: Parameters | None = None
    ) -> Result[*tuple[Any, ...]]: ...

    async def execute(
        self, statement: Executable, parameters: Parameters | None = None
    ) -> Result[*tuple[Any, ...]]:
        """Its rows, or how many it changed."""
        return await self._thread.run(partial(self._execute, statement, parameters))

    @overload
    async def scalar(
        self, statement: TypedReturnsRows[T], parameters: Parameters | None = None
    ) -> T | None: ...

    @overload
    async def scalar(self, statement: Executable, parameters: Parameters | None = None) -> Any: ...  # noqa: ANN401

    async def scalar(self, statement: Executable, parameters: Parameters | None = None) -> object:
        """The first column of its first row; None if there is none."""
        return await self._thread.run(partial(self._session.scalar, statement, parameters))

    @overload
    async def scalars(self, statement: TypedReturnsRows[T]) -> Sequence[T]: ...

    @overload
    async def scalars(self, statement: Executable) -> Sequence[Any]: ...

    async def scalars(self, statement: Executable) -> Sequence[Any]:
        """The first column of every row."""
        return await self._thread.run(lambda: self._session.scalars(statement).all())

    def _execute(
        self, statement: Executable, parameters: Parameters | None
    ) -> Result[*tuple[Any, ...]]:
        result = self._session.execute(statement, parameters)
        if isinstance(result, CursorResult) and not result.returns_rows:
            return result
        return result.freeze()()


WriteSession = NewType("WriteSession", ReadSession)
"""May do all that a ReadSession may, and write."""
