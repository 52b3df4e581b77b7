"""Gives clients quotas and topics by what they are called: guests are slow and keep to their own corner."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from mqttcore import Action, ClientView, Connect, Identity, Permission, Quotas, hookimpl


class GuestQuotas:
    """Lets guests in without password, with few messages a second and topics of their own."""

    @dataclass(frozen=True)
    class Config:
        """What a guest is, and what it may."""

        prefix: Annotated[str, Meta(min_length=1, description="Beginning of the client ids of guests.")] = "guest-"
        messages_per_s: Annotated[float, Meta(gt=0, description="Messages a guest may publish.")] = 10.0
        subscriptions_maximum: Annotated[int, Meta(ge=0, description="Subscriptions of a guest.")] = 5

    def __init__(self, config: Config) -> None:
        self._prefix = config.prefix
        self._quotas = Quotas(messages_per_s=config.messages_per_s, subscriptions_maximum=config.subscriptions_maximum)
        self._permissions = (
            Permission(Action.ALL, "guests/%c/#"),
            Permission(Action.SUBSCRIBE, "news/#", qos_maximum=0),
        )

    @hookimpl
    def authenticate(self, client: ClientView, connect: Connect) -> Identity | None:
        """Say who a guest is; others are somebody else's."""
        if not connect.client_id.startswith(self._prefix):
            return None
        return Identity("guest", permissions=self._permissions, quotas=self._quotas)
