"""Whom a connection to a registry trusts."""

import ssl
from collections.abc import Iterable
from pathlib import Path

from app.core.errors import InvalidArgument
from app.oci.registry.options import Endpoint


def make_context(endpoint: Endpoint, ca: Path | None) -> ssl.SSLContext:
    """TLS towards one registry: the system's authorities and the operator's. Blocks.

    Raises:
        InvalidArgument: A file of the operator's is unreadable or no PEM.
    """
    context = ssl.create_default_context()
    if not endpoint.is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if ca is None:
        return context
    try:
        if not ca.is_dir():
            context.load_verify_locations(ca)
            return context
        directory = ca / endpoint.host
        for authority in _files(directory, "*.crt"):
            context.load_verify_locations(authority)
        for certificate in _files(directory, "*.cert"):
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    except OSError as error:  # ssl.SSLError is one
        raise InvalidArgument(
            f"the authorities for registry {endpoint.host} can't be read from {ca}: {error}",
            advice="They are PEM files.",
        ) from error
    return context


def _files(directory: Path, pattern: str) -> Iterable[Path]:
    return sorted(directory.glob(pattern)) if directory.is_dir() else ()
