"""Authenticates with a challenge, so that no password goes over the line (MQTT 5 §4.12).

The client's CONNECT names the Authentication Method; it is sent a nonce in AUTH and answers with the HMAC-SHA-256 of
the nonce under its secret. A real one is SCRAM (RFC 5802); this shows how the packets go.
"""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from mqttcore import Auth, Challenge, ClientView, Connect, Identity, PropertyId, ReasonCode, Refusal, Secret, hookimpl

_METHOD = "EXAMPLE-HMAC-SHA-256"
_NONCE = "challenge.nonce"  # where the nonce is kept among the client's attributes, and under which name


class ChallengeUsers:
    """Asks clients to prove that they know their secret."""

    @dataclass(frozen=True)
    class Config:
        """Users and their secrets."""

        secrets: Annotated[Mapping[str, Secret], Meta(description="User name and secret of each user.")] = field(
            default_factory=dict
        )

    def __init__(self, config: Config) -> None:
        self._secrets = {name: secret.reveal().encode() for name, secret in config.secrets.items()}

    @hookimpl
    def authenticate(self, client: ClientView, connect: Connect) -> Challenge | Refusal | None:
        """Begin: remember who it claims to be, and send a nonce."""
        if connect.properties.get(PropertyId.AUTHENTICATION_METHOD) != _METHOD:
            return None
        if connect.user_name is None:
            return Refusal(ReasonCode.BAD_USER_NAME_OR_PASSWORD)
        return self._challenge(client)

    @hookimpl
    def continue_authentication(self, client: ClientView, auth: Auth) -> Identity | Challenge | Refusal | None:
        """Check the answer; a client that is connected begins again with 0x19."""
        if auth.properties.get(PropertyId.AUTHENTICATION_METHOD) != _METHOD:
            return None
        if auth.reason_code == ReasonCode.RE_AUTHENTICATE:
            return self._challenge(client)
        nonce = client.attributes.pop(_NONCE, None)
        secret = self._secrets.get(client.user_name or "")
        proof = hmac.digest(secret or b"nobody", nonce or b"", "sha256")
        is_right = hmac.compare_digest(auth.properties.get(PropertyId.AUTHENTICATION_DATA, b""), proof)
        if secret is None or nonce is None or not is_right:
            return Refusal(ReasonCode.NOT_AUTHORIZED)
        return Identity(client.user_name or "")

    def _challenge(self, client: ClientView) -> Challenge:
        nonce = client.attributes[_NONCE] = secrets.token_bytes(16)
        return Challenge(nonce)
