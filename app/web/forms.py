"""Reading what a browser posts: bounded, decoded, and text only."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from app.core.errors import InvalidArgument
from app.core.units import MIB

FORM_LIMIT_BYTES = MIB
FORM_FIELDS_LIMIT = 4096


class Form:
    """Fields of a posted form or a query string; a name may occur more than once."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def text(self, name: str, default: str = "") -> str:
        """The last value without spaces around it."""
        return self.raw(name, default).strip()

    def raw(self, name: str, default: str = "") -> str:
        """The last value as it was typed, with line ends as LF."""
        values = self._values.get(name)
        return values[-1].replace("\r\n", "\n") if values else default

    def all(self, name: str) -> list[str]:
        """Every value, in the order of the page."""
        return list(self._values.get(name, ()))

    def flag(self, name: str) -> bool:
        """Whether a checkbox was ticked."""
        return name in self._values

    def values(self) -> Mapping[str, str]:
        """The last value of each field, to fill the form again."""
        return {name: values[-1] for name, values in self._values.items()}


def parse_form(encoded: str) -> Form:
    """Decode `application/x-www-form-urlencoded`.

    Raises:
        InvalidArgument: It has too many fields or is not UTF-8.
    """
    try:
        pairs = parse_qsl(
            encoded, keep_blank_values=True, errors="strict", max_num_fields=FORM_FIELDS_LIMIT
        )
    except ValueError as error:
        raise InvalidArgument("The form can't be read: it is not UTF-8 or too large") from error
    return Form(pairs)


async def read_body_form(request: Request) -> Form:
    """Read the posted body.

    Raises:
        InvalidArgument: It is larger than FORM_LIMIT_BYTES or of another type.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in {"", "application/x-www-form-urlencoded"}:
        raise InvalidArgument(f"The form came as {media_type}, which this page does not take")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_LIMIT_BYTES:
            raise InvalidArgument("The form is larger than 1 MiB")
    return parse_form(body.decode("latin-1"))
