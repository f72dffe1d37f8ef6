"""Tables. Types and constraints that SQLite and PostgreSQL both have; names by one convention.

Moments are nanoseconds since the epoch, as everywhere in the domain. Hashes stand for every secret.
"""

from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.domain.container import ContainerState
from app.domain.event import EventType

BigKey = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER counts by itself in SQLite


class PlainText(TypeDecorator[str]):
    """Text from anywhere: what a database can't hold (NUL, lone surrogates) becomes U+FFFD."""

    impl: type[String] = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """Clean a value on its way in."""
        if value is None:
            return None
        return (
            value.replace("\0", "\ufffd")
            .encode("utf-16", "surrogatepass")
            .decode("utf-16", "replace")
        )


class PlainString(PlainText):
    """The same for text of limited length."""

    impl = String
    cache_ok = True


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class Base(DeclarativeBase):
    """Root of the models."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class ContainerRow(Base):
    """`config` and `boot_stages` are JSON with a version, see app.db.codec."""

    __tablename__ = "containers"
    __table_args__ = (
        _one_of("state", ContainerState),
        Index("ix_containers_created_at_ns", "created_at_ns"),
        Index("ix_containers_state", "state"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    state: Mapped[str] = mapped_column(String(16))
    image_id: Mapped[str] = mapped_column(String(128), index=True)
    created_at_ns: Mapped[int] = mapped_column(BigInteger)
    config: Mapped[str] = mapped_column(Text)
    pid: Mapped[int | None] = mapped_column(BigInteger)
    exit_code: Mapped[int] = mapped_column(BigInteger)
    oom_killed: Mapped[bool]
    error: Mapped[str] = mapped_column(PlainText)
    started_at_ns: Mapped[int | None] = mapped_column(BigInteger)
    finished_at_ns: Mapped[int | None] = mapped_column(BigInteger)
    stopped_by_user: Mapped[bool]
    restart_count: Mapped[int] = mapped_column(BigInteger)
    vm_id: Mapped[str | None] = mapped_column(String(64))
    boot_stages: Mapped[str] = mapped_column(Text)


class EventRow(Base):
    """Ids are never used again, even after the newest row is deleted."""

    __tablename__ = "events"
    __table_args__ = (
        _one_of("type", EventType),
        Index("ix_events_actor_id_id", "actor_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    type: Mapped[str] = mapped_column(String(16))
    action: Mapped[str] = mapped_column(PlainString(64))
    actor_id: Mapped[str] = mapped_column(PlainString(255))
    actor_name: Mapped[str] = mapped_column(PlainText)
    time_ns: Mapped[int] = mapped_column(BigInteger)
    initiator: Mapped[str] = mapped_column(PlainText)
    attributes: Mapped[str] = mapped_column(Text)
    subject: Mapped[str] = mapped_column(Text, server_default=text("'{}'"))


class UserRow(Base):
    """`name` is lower case; `password_hash` is argon2id in PHC form."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    created_at_ns: Mapped[int] = mapped_column(BigInteger)


class SessionRow(Base):
    """A browser that is signed in; `token_sha256` is lower-case hex."""

    __tablename__ = "sessions"

    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at_ns: Mapped[int] = mapped_column(BigInteger)
    last_seen_at_ns: Mapped[int] = mapped_column(BigInteger)


class ApiTokenRow(Base):
    """A token for scripts, of a user or of nobody; `token_sha256` is lower-case hex."""

    __tablename__ = "api_tokens"

    id: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(64), index=True)
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    user_id: Mapped[int | None] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    created_at_ns: Mapped[int] = mapped_column(BigInteger)
    last_used_at_ns: Mapped[int | None] = mapped_column(BigInteger)


class SetupLinkRow(Base):
    """The one-time link that makes the first user; there is at most one row."""

    __tablename__ = "setup_links"

    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    expires_at_ns: Mapped[int] = mapped_column(BigInteger)
