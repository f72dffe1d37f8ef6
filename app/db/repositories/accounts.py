"""Users, their sessions and tokens, and the set-up link; secrets only as hashes."""

from dataclasses import dataclass

from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.core.errors import Conflict, NotFound
from app.db.database import ReadSession
from app.db.models import ApiTokenRow, SessionRow, SetupLinkRow, UserRow
from app.db.rows import affected_rows
from app.domain.account import ApiToken, TokenIdentity, User

# Made once: every request of REST asks it.
_TOKEN_BY_HASH = (
    select(ApiTokenRow.id, ApiTokenRow.name, UserRow.name, ApiTokenRow.last_used_at_ns)
    .outerjoin(UserRow, UserRow.id == ApiTokenRow.user_id)
    .where(ApiTokenRow.token_sha256 == bindparam("key"))
)


@dataclass(frozen=True)
class StoredUser:
    """A user with what sign-in needs."""

    id: int
    name: str
    password_hash: str


@dataclass(frozen=True)
class StoredSession:
    """A session's row and its user."""

    user_name: str
    created_at_ns: int
    last_seen_at_ns: int


@dataclass(frozen=True)
class StoredToken:
    """A token's row and its user."""

    id: int
    identity: TokenIdentity
    last_used_at_ns: int | None


class AccountRepository:
    """Reads with any session; what changes something needs a WriteSession."""

    def __init__(self, session: ReadSession) -> None:
        self._session = session

    async def count_users(self) -> int:
        """How many users there are."""
        return await self._session.scalar(select(func.count()).select_from(UserRow)) or 0

    async def add_user(self, name: str, password_hash: str, *, at_ns: int) -> int:
        """Record a user; returns the row's id.

        Raises:
            Conflict: The name is taken.
        """
        if await self.find_user(name) is not None:
            raise Conflict(f"User {name} exists already")
        statement = (
            insert(UserRow)
            .values(name=name, password_hash=password_hash, created_at_ns=at_ns)
            .returning(UserRow.id)
        )
        try:
            return (await self._session.execute(statement)).scalar_one()
        except IntegrityError as error:
            raise Conflict(f"User {name} was just made") from error

    async def find_user(self, name: str) -> StoredUser | None:
        """The user with this name, None if there is none."""
        if not name.isascii():  # no user's name is, and not every text can be asked for
            return None
        row = await self._session.scalar(select(UserRow).where(UserRow.name == name))
        return None if row is None else StoredUser(row.id, row.name, row.password_hash)

    async def get_user(self, name: str) -> StoredUser:
        """The user with this name.

        Raises:
            NotFound: There is none.
        """
        user = await self.find_user(name)
        if user is None:
            raise NotFound(f"No such user: {name}")
        return user

    async def list_users(self) -> list[User]:
        """All users by name."""
        rows = await self._session.scalars(select(UserRow).order_by(UserRow.name))
        return [User(row.name, row.created_at_ns) for row in rows]

    async def remove_user(self, user_id: int) -> None:
        """Delete a user with all sessions and tokens."""
        await self._session.execute(delete(UserRow).where(UserRow.id == user_id))

    async def set_password_hash(self, user_id: int, password_hash: str) -> None:
        """Replace what the password is checked against."""
        statement = update(UserRow).where(UserRow.id == user_id)
        await self._session.execute(statement.values(password_hash=password_hash))

    async def add_session(self, token_sha256: str, user_id: int, *, at_ns: int) -> None:
        """Record that a browser signed in."""
        await self._session.execute(
            insert(SessionRow).values(
                token_sha256=token_sha256,
                user_id=user_id,
                created_at_ns=at_ns,
                last_seen_at_ns=at_ns,
            )
        )

    async def find_session(self, token_sha256: str) -> StoredSession | None:
        """The session with this secret's hash, also if it has expired."""
        query = (
            select(UserRow.name, SessionRow.created_at_ns, SessionRow.last_seen_at_ns)
            .join(UserRow, UserRow.id == SessionRow.user_id)
            .where(SessionRow.token_sha256 == token_sha256)
        )
        row = (await self._session.execute(query)).first()
        return None if row is None else StoredSession(*row)

    async def touch_session(self, token_sha256: str, *, at_ns: int) -> None:
        """Note that the session was used."""
        statement = update(SessionRow).where(SessionRow.token_sha256 == token_sha256)
        await self._session.execute(statement.values(last_seen_at_ns=at_ns))

    async def remove_session(self, token_sha256: str) -> None:
        """Forget a session; nothing happens if there is none."""
        await self._session.execute(
            delete(SessionRow).where(SessionRow.token_sha256 == token_sha256)
        )

    async def remove_sessions(self, user_id: int, *, keep_newest: int = 0) -> None:
        """Forget a user's sessions but for the newest few."""
        statement = delete(SessionRow).where(SessionRow.user_id == user_id)
        if keep_newest:
            kept = (
                select(SessionRow.token_sha256)
                .where(SessionRow.user_id == user_id)
                .order_by(SessionRow.created_at_ns.desc(), SessionRow.token_sha256)
                .limit(keep_newest)
            )
            statement = statement.where(SessionRow.token_sha256.not_in(kept))
        await self._session.execute(statement)

    async def remove_stale_sessions(self, *, created_before_ns: int, seen_before_ns: int) -> None:
        """Forget sessions that were made or last used before."""
        await self._session.execute(
            delete(SessionRow).where(
                (SessionRow.created_at_ns < created_before_ns)
                | (SessionRow.last_seen_at_ns < seen_before_ns)
            )
        )

    async def add_token(
        self, name: str, token_sha256: str, user_id: int | None, *, at_ns: int
    ) -> int:
        """Record a token; returns its id."""
        statement = (
            insert(ApiTokenRow)
            .values(name=name, token_sha256=token_sha256, user_id=user_id, created_at_ns=at_ns)
            .returning(ApiTokenRow.id)
        )
        return (await self._session.execute(statement)).scalar_one()

    async def find_token(self, token_sha256: str) -> StoredToken | None:
        """The token with this secret's hash."""
        row = (await self._session.execute(_TOKEN_BY_HASH, {"key": token_sha256})).first()
        if row is None:
            return None
        token_id, name, user_name, last_used_at_ns = row
        return StoredToken(token_id, TokenIdentity(name, user_name), last_used_at_ns)

    async def list_tokens(self) -> list[ApiToken]:
        """All tokens, oldest first."""
        query = (
            select(ApiTokenRow, UserRow.name)
            .outerjoin(UserRow, UserRow.id == ApiTokenRow.user_id)
            .order_by(ApiTokenRow.id)
        )
        return [
            ApiToken(row.id, row.name, user_name, row.created_at_ns, row.last_used_at_ns)
            for row, user_name in await self._session.execute(query)
        ]

    async def touch_token(self, token_id: int, *, at_ns: int) -> None:
        """Note that the token was used."""
        statement = update(ApiTokenRow).where(ApiTokenRow.id == token_id)
        await self._session.execute(statement.values(last_used_at_ns=at_ns))

    async def remove_token(self, ref: int | str) -> int:
        """Forget the token with this id, or all with this name; returns how many."""
        if isinstance(ref, str) and not ref.isascii():
            return 0
        is_meant = ApiTokenRow.id == ref if isinstance(ref, int) else ApiTokenRow.name == ref
        return affected_rows(await self._session.execute(delete(ApiTokenRow).where(is_meant)))

    async def replace_setup_link(self, token_sha256: str, *, expires_at_ns: int) -> None:
        """Make this the only set-up link."""
        await self.remove_setup_links()
        await self._session.execute(
            insert(SetupLinkRow).values(token_sha256=token_sha256, expires_at_ns=expires_at_ns)
        )

    async def has_setup_link(self, token_sha256: str, *, at_ns: int) -> bool:
        """Whether a set-up link with this secret's hash is valid."""
        query = select(func.count()).where(
            SetupLinkRow.token_sha256 == token_sha256, SetupLinkRow.expires_at_ns > at_ns
        )
        return bool(await self._session.scalar(query))

    async def remove_setup_links(self) -> None:
        """Make every set-up link invalid."""
        await self._session.execute(delete(SetupLinkRow))
