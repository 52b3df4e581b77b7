"""How the clients of the command line speak TLS: their options, and the context these describe."""

import ssl
from collections.abc import Callable
from typing import Any

import click

__all__ = ["client_context", "tls_options"]

_OPTIONS = [
    click.option("--tls", "is_tls", is_flag=True, help="TLS; the options below and mqtts:// imply it."),
    click.option("--cafile", metavar="FILE", help="Authorities to trust, PEM; by default the system's."),
    click.option("--cert", "certificate", metavar="FILE", help="Own certificate, PEM."),
    click.option("--key", metavar="FILE", help="Its private key, PEM."),
    click.option("--insecure", is_flag=True, help="Take any certificate of any server: anybody can read along."),
]


def tls_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `client_context` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def client_context(
    *, is_tls: bool, cafile: str | None, certificate: str | None, key: str | None, insecure: bool, alpn: str = "mqtt"
) -> ssl.SSLContext | None:
    """Return the context that the options describe; None: no TLS. alpn: what is spoken in it. Raises UsageError."""
    if not (is_tls or cafile or certificate or key or insecure):
        return None
    if (certificate is None) != (key is None):
        raise click.UsageError("--cert and --key belong together")
    try:
        context = ssl.create_default_context(cafile=cafile)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        raise click.UsageError(f"{certificate or cafile}: {reason}") from error
    except OSError as error:
        raise click.UsageError(f"--cafile, --cert or --key cannot be read: {error.strerror}") from error
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    return context
