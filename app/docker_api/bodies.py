"""Request bodies as Docker reads them: JSON whose keys match in any case and may be unknown."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from app.core.errors import InvalidArgument
from app.core.units import MIB

BODY_LIMIT_BYTES = 16 * MIB


class DockerModel(BaseModel):
    """An object of Docker's: field `console_size` is `ConsoleSize` in any case.

    As Go reads JSON: unknown keys are ignored, null leaves the default, the last of several
    spellings wins.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _match_keys(cls, value: Any) -> Any:  # noqa: ANN401  (whatever JSON holds)
        if not isinstance(value, dict):
            return value
        names = {name.replace("_", "").lower(): name for name in cls.model_fields}
        return {
            names.get(str(key).replace("_", "").lower(), key): each
            for key, each in value.items()
            if each is not None
        }


Model = TypeVar("Model", bound=DockerModel)


def body_of(model: type[Model]) -> Callable[[Request], Awaitable[Model]]:
    """A dependency that reads the body; an empty one is an object without keys."""

    async def read(request: Request) -> Model:
        return parse_body(model, await read_body(request))

    return read


async def read_body(request: Request) -> bytes:
    """The body of a request that takes JSON or nothing.

    Raises:
        InvalidArgument: It is of another type, or too long.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            raise InvalidArgument("the request's body is too large")
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if body and media_type not in {"", "application/json"}:
        raise InvalidArgument(
            f"unsupported Content-Type header ({content_type}): must be 'application/json'"
        )
    return bytes(body)


def parse_body(model: type[Model], body: bytes) -> Model:
    """Read a JSON object.

    Raises:
        InvalidArgument: It is none, or a field has another type; in Docker's words.
    """
    if not body.strip():
        return model()
    try:
        document = json.loads(body)
    except json.JSONDecodeError as exc:
        raise InvalidArgument(f"invalid JSON: {_fault(exc)}") from exc
    except UnicodeDecodeError as exc:
        raise InvalidArgument("invalid JSON: invalid UTF-8") from exc
    if document is None:
        return model()
    try:
        return model.model_validate(document)
    except ValidationError as exc:
        fault = exc.errors()[0]
        path = ".".join(str(part) for part in fault["loc"])
        raise InvalidArgument(
            f"invalid JSON: {path}: {fault['msg']}".replace(": : ", ": ")
        ) from exc


def _fault(error: json.JSONDecodeError) -> str:
    text = error.doc.rstrip()
    if error.pos >= len(text) or error.msg.startswith("Unterminated string"):
        return "unexpected EOF"
    if error.msg == "Extra data":
        return "unexpected content after JSON"
    return f"invalid character '{error.doc[error.pos]}' looking for beginning of value"
