"""Plugin `aliyun_auth`: who may log in to a broker that stands in for Alibaba's service, and what it may do."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mqttcore import (
    CONSUMED,
    ConnectionClosed,
    ConnectRefused,
    Consumed,
    Identity,
    Quotas,
    ReasonCode,
    Refusal,
    TopicHandler,
    hookimpl,
)

from .gate import Gate, Login, TokenChecker
from .live import Deadlines, LiveLogins
from .names import TOPIC_CHARACTERS, group_of, is_resource, parent_of
from .offline import Offline
from .p2p import P2P
from .profile import PROFILE, Profile
from .records import AccessKey, Group, Instance, ParentTopic
from .registry import Registry
from .rights import RightsOf
from .settings import AuthConfig, OfflineConfig
from .storage import FileStorage, MemoryStorage
from .tokens import TOKEN_TYPES, TokenCodec, TokenFault, TokenRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mqttcore import Action, Broker, ClientView, Connect, Event, Message

__all__ = ["AliyunAuth", "uploaded"]

_BACKSTOP_S = 2.0  # the engine cuts a client whose token expired this late, should our own timer fail
_SEEK_ROOM_MS = 10_000
_UPLOAD = "$SYS/uploadToken"
_EXPIRE, _NOTICE, _SILENT = "expire", "notice", "silent"


class AliyunAuth:
    """Logs clients in by signature, device credential, token or custom identity, from one registry."""

    name = "aliyun_auth"
    Config = AuthConfig

    def __init__(self, config: AuthConfig) -> None:
        self._config = config
        self.registry = Registry(
            FileStorage(config.path) if config.path is not None else MemoryStorage(),
            auto_create_groups=config.auto_create_groups,
            auto_create_topics=config.auto_create_topics,
            needs_group_prefix=config.needs_group_prefix,
            records_maximum=config.records_maximum,
            topics_maximum=config.topics_maximum,
        )
        self._live = LiveLogins(config.logins_maximum)
        self._deadlines = Deadlines(self.registry.now_ms, self._due, self._is_alive)
        self._quotas = Quotas(
            messages_per_s=config.messages_per_s,
            subscriptions_maximum=config.subscriptions_maximum,
            ignores_extra_subscriptions=True,
            payload_bytes_maximum=config.payload_bytes_maximum,
            topic_bytes_maximum=config.topic_length_maximum,
            topic_characters=None if config.any_topic_character else TOPIC_CHARACTERS,
        )
        # Ids of clients with a custom identity are free-form, and stand in topics to them.
        self._custom_quotas = replace(self._quotas, topic_characters=None)
        self._broker: Broker | None = None
        self._room_sought_ms = 0

    # --- life -------------------------------------------------------------------------------------------------------

    @hookimpl
    async def startup(self, broker: Broker) -> None:
        """Read the registry and offer it to the other plugins of the profile; fails where it can't be kept."""
        self._broker = broker
        self.registry.load(
            instances=[Instance(instance_id=one.id) for one in self._config.instances],
            access_keys=[
                AccessKey(
                    access_key_id=one.id,
                    secret=one.secret.reveal(),
                    rights=one.rights,
                    instances=one.instances,
                    groups=one.groups,
                    topics=one.topics,
                )
                for one in self._config.access_keys
            ],
            groups=[
                Group(group_id=group, instance_id=one.id) for one in self._config.instances for group in one.groups
            ],
            topics=[
                ParentTopic(topic=topic, instance_id=one.id) for one in self._config.instances for topic in one.topics
            ],
        )
        await self.registry.saved()
        keys = [key.reveal().encode() for key in self._config.token_keys] or [self.registry.token_key]
        self._checker = TokenChecker(self.registry, TokenCodec(keys))
        p2p = next((plugin for plugin in broker.plugins.values() if isinstance(plugin, P2P)), None)
        self._rights = RightsOf(
            self.registry,
            p2p_follows_parent=self._config.p2p_rights == "parent",
            word=p2p.word if p2p is not None else "p2p",
            level=p2p.level if p2p is not None else 2,
        )
        self._gate = Gate(self.registry, self._checker, self._rights, self._config)
        self.registry.revocations.when_revoked.append(self._revoked)
        self.registry.devices.when_changed.append(self._device_changed)
        self.registry.custom.when_changed.append(self._custom_changed)
        self.registry.when_key_changed.append(self._key_changed)
        self._profile = Profile(self.registry, self._checker, self._awaits_token)
        broker.provide(PROFILE, self._profile)
        section = broker.plugin_section(self.name)
        section.measure("logins", lambda: len(self._live))
        section.measure("deadlines", lambda: len(self._deadlines))
        section.measure("rules_cached", self._rights.__len__)
        for table in self.registry.tables:
            section.measure(table.name, table.__len__)

    @hookimpl
    async def shutdown(self, broker: Broker) -> None:
        """Write what is not written yet."""
        self._deadlines.close()
        await self.registry.saved()

    # --- login ------------------------------------------------------------------------------------------------------

    @hookimpl
    def authenticate(self, client: ClientView, connect: Connect) -> Identity | Refusal | None:
        """Judge a CONNECT; all of it is arithmetic and look-ups."""
        found = self._gate.judge(
            client_id=connect.client_id,
            connection_id=client.connection_id,
            listener=client.listener,
            user_name=connect.user_name,
            password=connect.password,
        )
        if not isinstance(found, Login):
            return found
        if self._live.is_full and not self._make_room():
            return Refusal(ReasonCode.SERVER_BUSY, "too many clients are logged in")
        self._live.add(found)
        for token_type in found.tokens:
            self._watch(found, token_type)
        if found.awaits_token_until_ms is not None:
            self._deadlines.add(found.awaits_token_until_ms, found.connection_id, _SILENT)
        return self._identity(found)

    @hookimpl
    def authorize_subscribe(self, client: ClientView, topic_filter: str, qos: int) -> bool | int | None:
        """Hold filters against the service's rules; a breach of rights closes the connection."""
        login = self._live.by_connection(client.connection_id)
        if login is None:
            return None
        bare = topic_filter.split("/", 2)[-1] if topic_filter.startswith("$share/") else topic_filter
        is_good = is_resource(
            bare,
            length_maximum=self._config.topic_length_maximum,
            any_character=self._config.any_topic_character,
        )
        if not is_good or not self.registry.take_topic(login.instance_id, parent_of(bare)):
            return False  # which closes the connection
        if qos == 2 and not client.clean_start and not self._config.grants_qos2_persistent:
            return ReasonCode.UNSPECIFIED_ERROR  # the service: such a subscription does not take effect
        return None

    @hookimpl
    def observe(self, events: Sequence[Event]) -> None:
        """Forget connections that are gone."""
        for event in events:
            if isinstance(event, ConnectionClosed | ConnectRefused):
                self._live.remove(event.connection_id)

    def _make_room(self) -> bool:
        """Forget logins whose end we were never told of, as events may be dropped; looks at all, so not too often."""
        assert self._broker is not None
        now_ms = self.registry.now_ms()
        if now_ms < self._room_sought_ms + _SEEK_ROOM_MS:
            return False
        self._room_sought_ms = now_ms
        for login in self._live.where(lambda one: self._live.by_client(one.client_id) is not one):
            self._live.remove(login.connection_id)
        for login in self._live.where(lambda _: True):
            if not self._broker.is_connected(login.client_id):
                self._live.remove(login.connection_id)
        return not self._live.is_full

    def _identity(self, login: Login) -> Identity:
        expires = [token.expires_ms for token in login.tokens.values()]
        if login.awaits_token_until_ms is not None:
            expires.append(login.awaits_token_until_ms)
        return Identity(
            login.name,
            permissions=login.permissions,
            quotas=self._quotas if login.custom is None else self._custom_quotas,
            expires_at_s=min(expires) / 1000 + _BACKSTOP_S if expires else None,
            closes_on_refused_subscribe=True,  # as the service does
            attributes=MappingProxyType(
                {
                    "instance_id": login.instance_id,
                    "group_id": login.group_id,
                    "access_key_id": login.access_key_id,
                    "mode": login.mode,
                }
            ),
            on_refused=self._refused if login.tokens else None,
        )

    def _apply(self, login: Login) -> None:
        """Give a live client the permissions that its login has now."""
        assert self._broker is not None
        if self._live.by_client(login.client_id) is login:
            self._broker.set_identity(login.client_id, self._identity(login))

    def _close(self, login: Login, reason: str) -> None:
        assert self._broker is not None
        if self._live.by_client(login.client_id) is login:
            self._broker.disconnect(login.client_id, ReasonCode.NOT_AUTHORIZED, reason)

    # --- tokens -----------------------------------------------------------------------------------------------------

    @hookimpl
    def topic_handlers(self, broker: Broker) -> Iterable[TopicHandler]:
        """Take the control topics: a new token, and the wish for offline messages where they come by themselves."""
        handlers = [TopicHandler(_UPLOAD, self._upload, is_authorized_by_itself=True)]
        if not any(isinstance(plugin, Offline) for plugin in broker.plugins.values()):
            pulled = OfflineConfig().topic
            handlers.append(TopicHandler(pulled, lambda client, message: CONSUMED, is_authorized_by_itself=True))
        return handlers

    def _upload(self, client: ClientView, message: Message) -> Consumed:
        login = self._live.by_connection(client.connection_id)
        if login is None or login.mode not in ("Token", "LegacyToken"):
            return CONSUMED  # nothing here rests on a token
        token_type = ""
        try:
            token_type, text = uploaded(message.payload)
            token, key = self._checker.check(text, token_type)
            if login.awaits_token_until_ms is None:
                if (token.access_key_id, token.instance_id) != (login.access_key_id, login.instance_id):
                    raise TokenRefused(TokenFault.NOT_PERMITTED, "the token was given to another access key")
            else:
                self._adopt(login, token.instance_id, key)
        except TokenRefused as refused:
            asyncio.get_running_loop().call_soon(self._invalid, login, token_type, refused.code, str(refused))
            # Below MQTT 5 a refused PUBLISH would close the connection before the notice is out.
            return Consumed(ReasonCode.NOT_AUTHORIZED) if client.protocol_version == 5 else CONSUMED
        is_first = login.awaits_token_until_ms is not None
        login.awaits_token_until_ms = None
        self._live.replace_token(login, token_type, token)
        login.permissions = self._rights.of_tokens(login.tokens.items(), key)
        self._watch(login, token_type)
        self._apply(login)
        if is_first:
            for let_in in self._profile.when_let_in:
                let_in(client)
        return CONSUMED

    def _awaits_token(self, connection_id: str) -> bool:
        login = self._live.by_connection(connection_id)
        return login is not None and login.awaits_token_until_ms is not None

    def _adopt(self, login: Login, instance_id: str, key: AccessKey) -> None:
        group_id = group_of(login.client_id) or ""
        if (
            self.registry.custom.is_blocked(instance_id, login.client_id)
            or not key.owns_group(group_id)
            or not self.registry.take_group(instance_id, group_id)
        ):
            raise TokenRefused(TokenFault.NOT_PERMITTED, "the token's access key is not good for this client")
        login.instance_id, login.access_key_id = instance_id, key.access_key_id

    def _watch(self, login: Login, token_type: str) -> None:
        token = login.tokens[token_type]
        notice_ms = token.expires_ms - round(self._config.token_expire_notice_s * 1000)
        self._deadlines.add(notice_ms, login.connection_id, _NOTICE, token_type, token.token_id)
        self._deadlines.add(token.expires_ms, login.connection_id, _EXPIRE, token_type, token.token_id)

    def _is_alive(self, connection_id: str, token_type: str, token_id: bytes) -> bool:
        login = self._live.by_connection(connection_id)
        if login is None:
            return False
        if not token_type:
            return login.awaits_token_until_ms is not None
        token = login.tokens.get(token_type)
        return token is not None and token.token_id == token_id

    def _due(self, connection_id: str, kind: str, token_type: str, token_id: bytes) -> None:
        login = self._live.by_connection(connection_id)
        if login is None or not self._is_alive(connection_id, token_type, token_id):
            return
        if kind == _NOTICE:
            expires_ms = login.tokens[token_type].expires_ms
            self._tell(login, "$SYS/tokenExpireNotice", {"expireTime": expires_ms, "type": token_type})
        elif kind == _EXPIRE:
            self._invalid(login, token_type, TokenFault.EXPIRED, "the token has expired")
        else:
            self._close(login, "no token was uploaded")

    def _revoked(self, token_id: bytes) -> None:
        for login in self._live.with_token(token_id):
            for token_type, token in login.tokens.items():
                if token.token_id == token_id:
                    self._invalid(login, token_type, TokenFault.REVOKED, "the token was revoked")
                    break

    def _refused(self, client: ClientView, action: Action, topic: str) -> None:
        """Say what a token lacks; the service closes the connection for it, in every version of MQTT."""
        login = self._live.by_connection(client.connection_id)
        if login is None or not login.tokens or topic == _UPLOAD:  # which has its own notices
            return
        code, token_type = self._rights.fault(login.tokens, action, topic)
        self._invalid(login, token_type, code, "no token allows it")

    def _invalid(self, login: Login, token_type: str, code: int, reason: str) -> None:
        self._tell(login, "$SYS/tokenInvalidNotice", {"code": code, "type": token_type})
        self._close(login, reason)

    def _tell(self, login: Login, topic: str, said: dict[str, Any]) -> None:
        assert self._broker is not None
        if self._live.by_client(login.client_id) is login:
            payload = json.dumps(said, separators=(",", ":")).encode()
            self._broker.deliver(login.client_id, topic, payload, stores_offline=False)

    # --- changes of the registry ------------------------------------------------------------------------------------

    def _device_changed(self, instance_id: str, client_id: str) -> None:
        login = self._live.by_client(client_id)
        if login is not None and (login.mode, login.instance_id) == ("DeviceCredential", instance_id):
            self._close(login, "the device's credential has changed")

    def _custom_changed(self, instance_id: str, kind: str, name: str) -> None:
        if kind == "BLOCKED":
            blocked = self._live.by_client(name)
            if blocked is not None and blocked.instance_id == instance_id:
                self._close(blocked, "the client may not connect")
            return
        for login in self._live.where(lambda one: one.custom == (kind, name) and one.instance_id == instance_id):
            assert login.custom is not None
            if self.registry.custom.identity(instance_id, *login.custom) is None:
                self._close(login, "the identity is gone")
                continue
            permissions = self.registry.custom.permissions(instance_id, *login.custom)
            login.permissions = self._rights.of_custom(permissions, instance_id)
            self._apply(login)

    def _key_changed(self, access_key_id: str) -> None:
        for login in self._live.where(lambda one: one.access_key_id == access_key_id):
            key = self.registry.access_key(access_key_id, login.instance_id)
            if key is None or not key.owns_group(login.group_id or ""):
                self._close(login, "the access key is no longer good")
                continue
            if login.tokens:
                login.permissions = self._rights.of_tokens(login.tokens.items(), key)
            else:
                login.permissions = self._rights.of_key(key, login.instance_id)
            self._apply(login)


def uploaded(payload: bytes) -> tuple[str, str]:
    """Return type and text of an uploaded token. TokenRefused when it is not said as it should be."""
    try:
        said = json.loads(payload)
        text, token_type = said.get("token", said.get("Token")), said.get("type")
    except (ValueError, AttributeError, RecursionError) as error:
        raise TokenRefused(TokenFault.FORGED, "the upload is no JSON object") from error
    if token_type not in TOKEN_TYPES or not isinstance(text, str):
        raise TokenRefused(TokenFault.FORGED, "the upload lacks a token or a type that we know")
    return token_type, text
