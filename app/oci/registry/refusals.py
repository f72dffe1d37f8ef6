"""A registry's refusals as errors of ours, in the words that Docker has for them."""

from http import HTTPStatus

from app.core.errors import CorruptData, SlipwayError
from app.domain.registry import RegistryDenied, RegistryFailed, RegistryLacks
from app.oci.config import parse_object

_TEXT_MAX_CHARS = 500


class Refused(RegistryFailed):
    """What the registry said, with its code; `translated` says it for one image.

    Attributes:
        status: Of HTTP.
        code_word: `MANIFEST_UNKNOWN` and so on; empty if it gave none.
        said: `manifest unknown: manifest unknown`, as Docker puts code and message together.
    """

    def __init__(self, message: str, status: int, code_word: str, said: str) -> None:
        super().__init__(message, is_definite=True)
        self.status = status
        self.code_word = code_word
        self.said = said


def refusal(method: str, url: str, status: int, body: bytes) -> Refused:
    """Read an answer that is none of the expected ones."""
    code_word, text = _first_error(body)
    if code_word:
        said = f"{code_word.lower().replace('_', ' ')}: {text}"
        return Refused(said, status, code_word, said)
    if status == HTTPStatus.UNAUTHORIZED:
        said = "unauthorized: authentication required"
        return Refused(f'{method.capitalize()} "{url}": {said}', status, "UNAUTHORIZED", said)
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    said = f"received unexpected HTTP status: {status} {phrase}".rstrip()
    return Refused(f'{method.capitalize()} "{url}": {said}', status, "", said)


def _first_error(body: bytes) -> tuple[str, str]:
    try:
        errors = parse_object(body, what="the registry's answer").get("errors")
    except CorruptData:
        return "", ""
    first = errors[0] if isinstance(errors, list) and errors else None
    if not isinstance(first, dict):
        return "", ""
    code_word, text = first.get("code"), first.get("message")
    if not isinstance(code_word, str) or not code_word:
        return "", ""
    text = text if isinstance(text, str) and text else code_word.lower().replace("_", " ")
    return code_word[:64].upper(), " ".join(text.split())[:_TEXT_MAX_CHARS]


def pull_refusal(error: SlipwayError, name: str, full: str) -> SlipwayError:
    """Say it for an image that is pulled (moby, distribution/errors.go, translatePullError).

    Args:
        error: What went wrong.
        name: The repository, as Docker shows it.
        full: With tag or digest.
    """
    if not isinstance(error, Refused):
        return error
    match error.code_word:
        case "DENIED":
            return RegistryLacks(
                f"pull access denied for {name}, repository does not exist or may require "
                f"'docker login': {error.said}"
            )
        case "MANIFEST_UNKNOWN":
            return RegistryLacks(f"manifest for {full} not found: {error.said}")
        case "NAME_UNKNOWN":
            return RegistryLacks(f"repository {name} not found: {error.said}")
        case "" if error.status == HTTPStatus.NOT_FOUND:
            said = "manifest unknown: manifest unknown"
            return RegistryLacks(f"manifest for {full} not found: {said}")
    return error


def push_refusal(error: SlipwayError) -> SlipwayError:
    """Say it for a push, where a refusal is told as it came."""
    if isinstance(error, Refused) and error.code_word in {"DENIED", "UNAUTHORIZED"}:
        return RegistryDenied(error.said)
    if isinstance(error, RegistryDenied):
        return RegistryDenied(error.said)
    return error
