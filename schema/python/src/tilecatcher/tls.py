"""Encryption: whom to trust and what to show, for `Client` and `Sender`."""

from __future__ import annotations

import ssl
from os import PathLike
from typing import Union

from .errors import BadInput

File = Union[str, PathLike[str]]


def tls_context(ca: File, cert: File | None = None, key: File | None = None) -> ssl.SSLContext:
    """A context of TLS 1.3 that trusts servers signed by `ca`, and shows `cert` with its `key`. All are PEM files.

    The server's certificate must have the host that is connected to, name or IP address, in its SAN.

    Raises BadInput: a file can not be used, or only one of `cert` and `key` is given.
    """
    if (cert is None) != (key is None):
        raise BadInput("a certificate goes with its key: give cert and key, or neither")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(ca)
        if cert is not None:
            context.load_cert_chain(cert, key)
    except OSError as error:
        raise BadInput(f"TLS files {ca}, {cert}, {key}: {error}") from error
    return context
