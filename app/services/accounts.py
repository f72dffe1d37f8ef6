"""Who may use Slipway: the first start, sign-in, sessions, users, tokens.

Every secret is random and kept as a SHA-256; passwords as argon2id. Sign-in is throttled by name
and by client address, and takes as long for an unknown name as for a known one.
"""

import asyncio
import base64
import secrets
import time
from collections.abc import Callable

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from app.core.errors import Conflict, NotFound, PermissionDenied, Unauthenticated
from app.db.database import Database
from app.db.repositories.accounts import AccountRepository
from app.domain.account import (
    MAXIMUM_PASSWORD_CHARACTERS,
    SECOND_NS,
    SESSION_IDLE_S,
    SESSION_LIFETIME_S,
    SETUP_LINK_LIFETIME_S,
    TOKEN_PREFIX,
    ApiToken,
    NewApiToken,
    Session,
    TokenIdentity,
    User,
    check_password,
    check_token_name,
    check_user_name,
    csrf_token_of,
    normalise_password,
    normalise_user_name,
    secret_hash,
    session_end_ns,
)
from app.services.throttle import Throttle, client_key

SECRET_BYTES = 32
HASHES_AT_ONCE = 2  # each takes 64 MiB and a CPU for some 0.1 s
SESSIONS_PER_USER = 50
TOUCH_AFTER_S = 60  # use is noted this often, so that a page is not a write
NAME_FREE_ATTEMPTS = 10
NAME_LONGEST_WAIT_S = 30.0  # short: a stranger must not lock the administrator out
CLIENT_FREE_ATTEMPTS = 10
CLIENT_LONGEST_WAIT_S = 900.0
_WRONG = "Name or password is wrong"


class AccountService:
    """One per engine and per command; the throttle is the engine's alone.

    Args:
        database: Open.
        clock_ns: Nanoseconds since the epoch; tests move it.
        clock_s: Monotonic seconds for the throttle.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        clock_s: Callable[[], float] = time.monotonic,
        hasher: PasswordHasher | None = None,
    ) -> None:
        self._database = database
        self._clock_ns = clock_ns
        self._hasher = hasher or PasswordHasher()
        self._hashing = asyncio.Semaphore(HASHES_AT_ONCE)
        self._decoy_hash = _decoy_hash(self._hasher)
        self._by_name = Throttle(
            free_attempts=NAME_FREE_ATTEMPTS, longest_wait_s=NAME_LONGEST_WAIT_S, clock_s=clock_s
        )
        self._by_client = Throttle(
            free_attempts=CLIENT_FREE_ATTEMPTS,
            longest_wait_s=CLIENT_LONGEST_WAIT_S,
            clock_s=clock_s,
        )

    async def setup_required(self) -> bool:
        """Whether there is no user yet."""
        async with self._database.read() as session:
            return await AccountRepository(session).count_users() == 0

    async def issue_setup_link(self) -> str:
        """A new secret for the first start's link; the one before is no longer valid.

        Raises:
            Conflict: There is a user already.
        """
        token = secrets.token_urlsafe(SECRET_BYTES)
        expires_at_ns = self._clock_ns() + SETUP_LINK_LIFETIME_S * SECOND_NS
        async with self._database.write() as session:
            accounts = AccountRepository(session)
            if await accounts.count_users():
                raise Conflict("Slipway has been set up already", advice="Sign in.")
            await accounts.replace_setup_link(secret_hash(token), expires_at_ns=expires_at_ns)
        return token

    async def create_first_admin(self, token: str, name: str, password: str) -> Session:
        """Make the first user by the one-time link and sign in.

        Raises:
            PermissionDenied: The link is wrong, used, replaced or too old.
            Conflict: There is a user already.
            InvalidFields: `name` or `password`; the link stays valid.
        """
        await self._require_setup_link(token)
        name = check_user_name(name)
        password_hash = await self._hash(check_password(password))
        now_ns = self._clock_ns()
        secret = secrets.token_urlsafe(SECRET_BYTES)
        async with self._database.write() as session:
            accounts = AccountRepository(session)
            await self._check_setup(accounts, token)
            user_id = await accounts.add_user(name, password_hash, at_ns=now_ns)
            await accounts.remove_setup_links()
            await accounts.add_session(secret_hash(secret), user_id, at_ns=now_ns)
        return _session(name, secret, created_at_ns=now_ns, last_seen_at_ns=now_ns, is_new=True)

    async def sign_in(self, name: str, password: str, *, client: str) -> Session:
        """Make a session.

        `client` is the address that asks, for the throttle.

        Raises:
            Unauthenticated: Name or password is wrong; it does not say which.
            TooManyRequests: Too many attempts for this name or from this client.
        """
        name = normalise_user_name(name)
        name_key, address_key = secret_hash(name), client_key(client)
        self._by_client.check(address_key)
        self._by_name.check(name_key)
        self._by_client.count(address_key)
        self._by_name.count(name_key)
        async with self._database.read() as session:
            user = await AccountRepository(session).find_user(name)
        stored_hash = user.password_hash if user else self._decoy_hash
        password = normalise_password(password)[: MAXIMUM_PASSWORD_CHARACTERS + 1]
        is_right = await self._verify(stored_hash, password)
        if user is None or not is_right:
            raise Unauthenticated(_WRONG, advice="Try again.")
        self._by_client.clear(address_key)
        self._by_name.clear(name_key)
        new_hash = None
        if self._hasher.check_needs_rehash(stored_hash):
            new_hash = await self._hash(password)
        now_ns = self._clock_ns()
        secret = secrets.token_urlsafe(SECRET_BYTES)
        async with self._database.write() as session:
            accounts = AccountRepository(session)
            present = await accounts.find_user(name)
            if present != user:  # removed, or its password changed, while we hashed
                raise Unauthenticated(_WRONG, advice="Try again.")
            if new_hash:
                await accounts.set_password_hash(user.id, new_hash)
            await accounts.remove_stale_sessions(
                created_before_ns=now_ns - SESSION_LIFETIME_S * SECOND_NS,
                seen_before_ns=now_ns - SESSION_IDLE_S * SECOND_NS,
            )
            await accounts.add_session(secret_hash(secret), user.id, at_ns=now_ns)
            await accounts.remove_sessions(user.id, keep_newest=SESSIONS_PER_USER)
        return _session(name, secret, created_at_ns=now_ns, last_seen_at_ns=now_ns, is_new=True)

    async def sign_out(self, session_token: str) -> None:
        """End a session; nothing happens if there is none."""
        async with self._database.write() as session:
            await AccountRepository(session).remove_session(secret_hash(session_token))

    async def authenticate_session(self, token: str) -> Session | None:
        """The session of a cookie's secret, its end moved on; None if unknown or ended."""
        if not token:
            return None
        token_sha256 = secret_hash(token)
        async with self._database.read() as session:
            stored = await AccountRepository(session).find_session(token_sha256)
        if stored is None:
            return None
        now_ns = self._clock_ns()
        last_seen_at_ns = stored.last_seen_at_ns
        end_ns = session_end_ns(created_at_ns=stored.created_at_ns, last_seen_at_ns=last_seen_at_ns)
        if now_ns >= end_ns:
            return None
        if now_ns - last_seen_at_ns >= TOUCH_AFTER_S * SECOND_NS:
            last_seen_at_ns = now_ns
            async with self._database.write() as session:
                await AccountRepository(session).touch_session(token_sha256, at_ns=now_ns)
        return _session(
            stored.user_name,
            token,
            created_at_ns=stored.created_at_ns,
            last_seen_at_ns=last_seen_at_ns,
        )

    async def authenticate_token(self, bearer: str) -> TokenIdentity | None:
        """Whose token this is; None if it is unknown or revoked."""
        if not bearer.startswith(TOKEN_PREFIX):
            return None
        async with self._database.read() as session:
            stored = await AccountRepository(session).find_token(secret_hash(bearer))
        if stored is None:
            return None
        now_ns = self._clock_ns()
        if now_ns - (stored.last_used_at_ns or 0) >= TOUCH_AFTER_S * SECOND_NS:
            async with self._database.write() as session:
                await AccountRepository(session).touch_token(stored.id, at_ns=now_ns)
        return stored.identity

    async def add_user(self, name: str, password: str) -> User:
        """Make a user.

        Raises:
            InvalidFields: `name` or `password`.
            Conflict: The name is taken.
        """
        name = check_user_name(name)
        password_hash = await self._hash(check_password(password))
        now_ns = self._clock_ns()
        async with self._database.write() as session:
            accounts = AccountRepository(session)
            await accounts.add_user(name, password_hash, at_ns=now_ns)
            await accounts.remove_setup_links()
        return User(name, now_ns)

    async def list_users(self) -> list[User]:
        """All users by name."""
        async with self._database.read() as session:
            return await AccountRepository(session).list_users()

    async def remove_user(self, name: str) -> None:
        """Delete a user with all sessions and tokens.

        Raises:
            NotFound: There is none of this name.
            Conflict: It is the last one.
        """
        async with self._database.write() as session:
            accounts = AccountRepository(session)
            user = await accounts.get_user(normalise_user_name(name))
            if await accounts.count_users() == 1:
                raise Conflict(
                    f"User {user.name} is the only one",
                    advice="Add another user first, or nobody could sign in.",
                )
            await accounts.remove_user(user.id)

    async def set_password(self, name: str, password: str) -> None:
        """Change a user's password and end all its sessions; tokens stay.

        Raises:
            NotFound: There is no such user.
            InvalidFields: `password`.
        """
        password_hash = await self._hash(check_password(password))
        async with self._database.write() as session:
            accounts = AccountRepository(session)
            user = await accounts.get_user(normalise_user_name(name))
            await accounts.set_password_hash(user.id, password_hash)
            await accounts.remove_sessions(user.id)

    async def create_token(self, name: str, user_name: str | None = None) -> NewApiToken:
        """Make a token for scripts; its secret is known only now.

        A user's tokens go with the user; one without a user is the machine's own. Names may repeat.

        Raises:
            InvalidFields: `name`.
            NotFound: There is no such user.
        """
        name = check_token_name(name)
        secret = TOKEN_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        async with self._database.write() as session:
            accounts = AccountRepository(session)
            user_id = None
            if user_name is not None:
                user_id = (await accounts.get_user(normalise_user_name(user_name))).id
            token_id = await accounts.add_token(
                name, secret_hash(secret), user_id, at_ns=self._clock_ns()
            )
        return NewApiToken(token_id, name, secret)

    async def list_tokens(self) -> list[ApiToken]:
        """All tokens, oldest first."""
        async with self._database.read() as session:
            return await AccountRepository(session).list_tokens()

    async def revoke_token(self, ref: int | str) -> None:
        """Make the token with this id, or all with this name, useless at once.

        Raises:
            NotFound: There is none.
        """
        async with self._database.write() as session:
            if not await AccountRepository(session).remove_token(ref):
                raise NotFound(f"No such token: {ref}")

    async def _require_setup_link(self, token: str) -> None:
        """Refuse a stranger before any hashing is done for him."""
        async with self._database.read() as session:
            await self._check_setup(AccountRepository(session), token)

    async def _check_setup(self, accounts: AccountRepository, token: str) -> None:
        if await accounts.count_users():
            raise Conflict("Slipway has been set up already", advice="Sign in.")
        if not await accounts.has_setup_link(secret_hash(token), at_ns=self._clock_ns()):
            raise PermissionDenied(
                "This set-up link is not valid any more",
                advice="Start Slipway again: it prints a new link.",
            )

    async def _hash(self, password: str) -> str:
        async with self._hashing:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def _verify(self, stored_hash: str, password: str) -> bool:
        async with self._hashing:
            return await asyncio.to_thread(self._verify_now, stored_hash, password)

    def _verify_now(self, stored_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored_hash, password)
        except (Argon2Error, InvalidHashError):
            return False


def _decoy_hash(hasher: PasswordHasher) -> str:
    """A hash of nothing, for names that nobody has: it takes as long to check as a real one."""
    salt, digest = (
        base64.b64encode(secrets.token_bytes(length)).decode().rstrip("=")
        for length in (hasher.salt_len, hasher.hash_len)
    )
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${costs}${salt}${digest}"


def _session(
    user_name: str,
    secret: str,
    *,
    created_at_ns: int,
    last_seen_at_ns: int,
    is_new: bool = False,
) -> Session:
    return Session(
        user_name=user_name,
        csrf_token=csrf_token_of(secret),
        expires_at_ns=session_end_ns(created_at_ns=created_at_ns, last_seen_at_ns=last_seen_at_ns),
        token=secret if is_new else "",
    )
