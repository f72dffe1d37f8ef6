"""The one error hierarchy.

A kind says what the caller can do about it; each face (REST, dashboard, CLI, later the Docker API)
maps kinds to its own status once. A message names what failed and which object; `advice` says what
to do. Library exceptions are converted where they are met, with `from`, and never travel further.
"""


class SlipwayError(Exception):
    """Root of everything Slipway raises on purpose.

    Attributes:
        message: What failed and on which object, for the operator.
        advice: What to do about it; empty when nothing sensible can be said.
    """

    code = "internal"

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


class InvalidArgument(SlipwayError):
    """The request itself is wrong; repeating it unchanged can't succeed.

    Attributes:
        field: Name of the offending field as the caller spelt it, or None.
    """

    code = "invalid_argument"

    def __init__(self, message: str, *, field: str | None = None, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.field = field


class InvalidFields(InvalidArgument):
    """Several fields of one request are wrong.

    Attributes:
        faults: Text for each offending field.
    """

    def __init__(self, faults: dict[str, str], *, advice: str = "") -> None:
        first_field, first_fault = next(iter(faults.items()))
        message = first_fault if len(faults) == 1 else "; ".join(faults.values())
        super().__init__(message, field=first_field, advice=advice)
        self.faults = faults


class NotFound(SlipwayError):
    """The named object does not exist."""

    code = "not_found"


class Conflict(SlipwayError):
    """The object's present state does not allow the operation."""

    code = "conflict"


class AlreadyInState(SlipwayError):
    """The object is already where the operation would bring it; nothing was changed."""

    code = "not_modified"


class Unauthenticated(SlipwayError):
    """Nobody, or nobody known, is asking."""

    code = "unauthenticated"


class PermissionDenied(SlipwayError):
    """The caller is known and may not do this."""

    code = "permission_denied"


class TooManyRequests(SlipwayError):
    """A throttle holds the caller back.

    Attributes:
        retry_after_s: Seconds until the next attempt is allowed.
    """

    code = "too_many_requests"

    def __init__(self, message: str, *, retry_after_s: int, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.retry_after_s = retry_after_s


class ResourceExhausted(SlipwayError):
    """The host lacks memory, disk or another resource for the operation."""

    code = "resource_exhausted"


class Unsupported(SlipwayError):
    """The operation is known and not available here."""

    code = "unsupported"


class Unavailable(SlipwayError):
    """A part the operation needs (guest, hypervisor, channel) does not answer now."""

    code = "unavailable"


class DeadlineExceeded(Unavailable):
    """A wait on the outside ran out of time; the outcome is unknown until state is read again."""

    code = "deadline_exceeded"


class GuestFailed(SlipwayError):
    """The guest refused or failed a request.

    Attributes:
        errno: The guest's errno (Linux numbering), or 0.
    """

    code = "guest_failed"

    def __init__(self, message: str, *, errno: int = 0, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.errno = errno


class CorruptData(SlipwayError):
    """Bytes are not what they claim to be: a digest, a frame, an archive."""

    code = "corrupt_data"


class PrerequisiteMissing(SlipwayError):
    """The machine lacks something Slipway needs; `advice` is the cure."""

    code = "prerequisite_missing"
