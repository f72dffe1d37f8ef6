"""Users, sessions and tokens: what they are and which names and passwords are allowed."""

import hashlib
import hmac
import re
import unicodedata
from dataclasses import dataclass

from app.core.errors import InvalidFields

MINIMUM_PASSWORD_CHARACTERS = 10
MAXIMUM_PASSWORD_CHARACTERS = 1024  # a longer one only costs time to hash
TOKEN_PREFIX = "slw_"  # noqa: S105 - lets secret scanners find a token that leaked
SESSION_IDLE_S = 24 * 3600
SESSION_LIFETIME_S = 14 * 24 * 3600
SETUP_LINK_LIFETIME_S = 24 * 3600
SECOND_NS = 1_000_000_000
_USER_NAME = re.compile(r"[a-z0-9][a-z0-9_.@-]{0,63}")
_TOKEN_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.@ -]{0,63}")


@dataclass(frozen=True)
class User:
    """Somebody who may sign in; every user is an administrator."""

    name: str
    created_at_ns: int


@dataclass(frozen=True)
class Session:
    """A browser that is signed in.

    Attributes:
        token: The secret for the cookie; only in the value returned at sign-in, else empty.
        csrf_token: What every form of this session carries; it can't be made without the secret.
        expires_at_ns: When it ends if it is not used; use moves it on, up to the absolute end.
    """

    user_name: str
    csrf_token: str
    expires_at_ns: int
    token: str = ""


@dataclass(frozen=True)
class ApiToken:
    """A token for scripts as it is listed; `user_name` is None for one of the machine itself."""

    id: int
    name: str
    user_name: str | None
    created_at_ns: int
    last_used_at_ns: int | None


@dataclass(frozen=True)
class NewApiToken:
    """A token at its creation, the only time its secret is known."""

    id: int
    name: str
    secret: str


@dataclass(frozen=True)
class TokenIdentity:
    """Who asks by a token."""

    name: str
    user_name: str | None


def normalise_user_name(name: str) -> str:
    """User names are compared without case and surrounding blanks."""
    return name.strip().lower()


def check_user_name(name: str) -> str:
    """Return the name in the form in which it is kept.

    Raises:
        InvalidFields: `name` has other characters than a user name may have.
    """
    name = normalise_user_name(name)
    if not _USER_NAME.fullmatch(name):
        raise InvalidFields(
            {
                "name": "A user name has 1 to 64 letters a-z, digits and _ . @ -, and begins with "
                "a letter or digit"
            }
        )
    return name


def check_token_name(name: str) -> str:
    """Return the name without surrounding blanks.

    Raises:
        InvalidFields: It has other characters than a token's name may have.
    """
    name = name.strip()
    if not _TOKEN_NAME.fullmatch(name):
        raise InvalidFields(
            {
                "name": "A token name has 1 to 64 letters, digits, blanks and _ . @ -, and begins "
                "with a letter or digit"
            }
        )
    return name


def check_password(password: str) -> str:
    """Return the password as it is hashed: length is the only rule (NIST SP 800-63B, 3.1.1.2).

    Raises:
        InvalidFields: It is too short or too long.
    """
    password = normalise_password(password)
    if len(password) < MINIMUM_PASSWORD_CHARACTERS:
        raise InvalidFields(
            {"password": f"A password has at least {MINIMUM_PASSWORD_CHARACTERS} characters"}
        )
    if len(password) > MAXIMUM_PASSWORD_CHARACTERS:
        raise InvalidFields(
            {"password": f"A password has at most {MAXIMUM_PASSWORD_CHARACTERS} characters"}
        )
    return password


def normalise_password(password: str) -> str:
    """The same characters typed on different keyboards give the same password.

    What is no character (half of a surrogate pair) becomes U+FFFD, so that it can be hashed.
    """
    text = password.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return unicodedata.normalize("NFKC", text)


def secret_hash(secret: str) -> str:
    """What is kept of a secret of ours: it is random, so one SHA-256 is enough."""
    return hashlib.sha256(secret_bytes(secret)).hexdigest()


def secret_bytes(secret: str) -> bytes:
    """Whatever somebody sends for a secret can be hashed."""
    return secret.encode("utf-8", "surrogatepass")


def csrf_token_of(session_secret: str) -> str:
    """The forms' token of a session: derived, so nothing more is kept."""
    return hmac.new(secret_bytes(session_secret), b"slipway csrf", hashlib.sha256).hexdigest()


def session_end_ns(*, created_at_ns: int, last_seen_at_ns: int) -> int:
    """When a session that is not used any more ends."""
    return min(
        last_seen_at_ns + SESSION_IDLE_S * SECOND_NS,
        created_at_ns + SESSION_LIFETIME_S * SECOND_NS,
    )
