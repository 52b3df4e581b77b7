"""Who may connect stands in the configuration.

[plugins.static_users.passwords]
anna = { env = "ANNAS_PASSWORD" }
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from mqttcore import ClientView, Connect, Identity, ReasonCode, Refusal, Secret, hookimpl


class StaticUsers:
    """Lets in users whose passwords stand in the configuration."""

    @dataclass(frozen=True)
    class Config:
        """Users and their passwords."""

        passwords: Annotated[Mapping[str, Secret], Meta(description="User name and password of each user.")] = field(
            default_factory=dict
        )

    def __init__(self, config: Config) -> None:
        self._passwords = {name: secret.reveal().encode() for name, secret in config.passwords.items()}

    @hookimpl
    def authenticate(self, client: ClientView, connect: Connect) -> Identity | Refusal | None:
        """Compare in constant time, unknown users as well."""
        if connect.user_name is None:
            return None  # perhaps somebody else knows who this is
        wanted = self._passwords.get(connect.user_name)
        is_right = hmac.compare_digest(connect.password or b"", wanted if wanted is not None else b"\0")
        if wanted is None or not is_right:
            return Refusal(ReasonCode.BAD_USER_NAME_OR_PASSWORD)
        return Identity(connect.user_name)
