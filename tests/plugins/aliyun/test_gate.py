"""Who is let in, who is not and with which code: one row for each rule."""

from typing import Any

import pytest
from mqttcore_plugins.aliyun import rights
from mqttcore_plugins.aliyun.gate import Gate, Login, TokenChecker
from mqttcore_plugins.aliyun.records import AccessKey, CustomPermission, Group, Instance, ParentTopic
from mqttcore_plugins.aliyun.registry import Registry
from mqttcore_plugins.aliyun.rights import RightsOf
from mqttcore_plugins.aliyun.settings import AuthConfig
from mqttcore_plugins.aliyun.signatures import sign
from mqttcore_plugins.aliyun.storage import MemoryStorage
from mqttcore_plugins.aliyun.tokens import TokenCodec

from mqttcore import Action, Permission, Refusal

INSTANCE = "mqtt-xxxxx"
SECRET = "XXXXX"
CLIENT = "GID_Test@@@0001"

BAD_CLIENT_ID, BAD_PASSWORD, NOT_AUTHORIZED, BANNED = 0x85, 0x86, 0x87, 0x8A


class World:
    """A registry with one of everything, and a gate before it."""

    def __init__(self, **settings: Any) -> None:
        self.now = 1_000_000_000
        self.registry = Registry(MemoryStorage(), now_ms=lambda: self.now)
        self.registry.load(
            instances=[Instance(instance_id=INSTANCE)],
            access_keys=[
                AccessKey(access_key_id="YYYYY", secret=SECRET),
                AccessKey(access_key_id="PUB", secret=SECRET, rights="publish"),
                AccessKey(access_key_id="SUB", secret=SECRET, rights="subscribe", topics=("TopicA",)),
                AccessKey(access_key_id="OTHER", secret=SECRET, instances=("mqtt-other",)),
                AccessKey(access_key_id="NOGROUP", secret=SECRET, groups=("GID_Else",)),
                AccessKey(access_key_id="OFF", secret=SECRET, is_enabled=False),
            ],
            groups=[Group(group_id="GID_Test", instance_id=INSTANCE)],
            topics=[ParentTopic(topic=topic, instance_id=INSTANCE) for topic in ("TopicA", "TopicB")],
        )
        self.codec = TokenCodec([b"k" * 32])
        config = AuthConfig(**settings)
        self.rights = RightsOf(self.registry, p2p_follows_parent=config.p2p_rights == "parent")
        self.gate = Gate(self.registry, TokenChecker(self.registry, self.codec), self.rights, config)

    def judge(
        self,
        user_name: str | None,
        password: bytes | str | None,
        client_id: str = CLIENT,
        listener: str | None = "default",
    ) -> Login | Refusal | None:
        return self.gate.judge(
            client_id=client_id,
            connection_id="0" * 32,
            listener=listener,
            user_name=user_name,
            password=password.encode() if isinstance(password, str) else password,
        )

    def token(self, actions: str = "RW", resources: tuple[str, ...] = ("TopicA/#",), **changes: Any) -> str:
        said: dict[str, Any] = {"instance_id": INSTANCE, "access_key_id": "YYYYY", "expires_ms": self.now + 60_000}
        return self.codec.issue(actions=actions, resources=resources, issued_ms=self.now, **(said | changes))


def code(answer: object) -> int:
    assert isinstance(answer, Refusal), answer
    return answer.reason_code


def let_in(answer: object) -> Login:
    assert isinstance(answer, Login), getattr(answer, "reason", answer)
    return answer


def test_signature_of_the_documentation_logs_in():
    login = let_in(World().judge("Signature|YYYYY|mqtt-xxxxx", "vI009IZJZVGRwBwZvnbwjfuXxVM="))
    assert (login.mode, login.access_key_id, login.instance_id, login.group_id) == (
        "Signature",
        "YYYYY",
        INSTANCE,
        "GID_Test",
    )
    assert login.permissions == (Permission(Action.ALL, "TopicA/#"), Permission(Action.ALL, "TopicB/#"))
    assert login.name == "mqtt-xxxxx/GID_Test@@@0001"


@pytest.mark.parametrize(
    ("user_name", "password", "client_id", "reason_code"),
    [
        ("Signature|YYYYY|mqtt-xxxxx", "wrong", CLIENT, BAD_PASSWORD),
        ("Signature|YYYYY|mqtt-xxxxx", None, CLIENT, BAD_PASSWORD),
        ("Signature|YYYYY|mqtt-xxxxx", b"\xff\xfe", CLIENT, BAD_PASSWORD),
        ("Signature|YYYYY|mqtt-xxxxx", sign(SECRET, "GID_Test@@@0002"), CLIENT, BAD_PASSWORD),
        ("Signature|NONE|mqtt-xxxxx", sign("", CLIENT), CLIENT, BAD_PASSWORD),
        ("Signature|OFF|mqtt-xxxxx", sign(SECRET, CLIENT), CLIENT, NOT_AUTHORIZED),
        ("Signature|YYYYY|mqtt-none", sign(SECRET, CLIENT), CLIENT, NOT_AUTHORIZED),
        ("Signature|OTHER|mqtt-xxxxx", sign(SECRET, CLIENT), CLIENT, NOT_AUTHORIZED),
        ("Signature|NOGROUP|mqtt-xxxxx", sign(SECRET, CLIENT), CLIENT, NOT_AUTHORIZED),
        ("Signature|YYYYY|mqtt-xxxxx", sign(SECRET, "GID_None@@@1"), "GID_None@@@1", NOT_AUTHORIZED),
        ("Signature|YYYYY|mqtt-xxxxx", sign(SECRET, "plain"), "plain", BAD_CLIENT_ID),
        ("Signature|YYYYY|mqtt-xxxxx", sign(SECRET, ""), "", BAD_CLIENT_ID),
        ("Signature|YYYYY|mqtt-xxxxx", "", "GID_Test@@@" + "a" * 54, BAD_CLIENT_ID),
        ("Signature|YYYYY|mqtt-xxxxx", "", "GID_Test@@@a/#", BAD_CLIENT_ID),
        ("Signature|YYYYY", sign(SECRET, CLIENT), CLIENT, BAD_PASSWORD),
        ("Signature|YYYYY|mqtt-xxxxx|more", sign(SECRET, CLIENT), CLIENT, BAD_PASSWORD),
        ("YYYYY", sign(SECRET, "GID_Test"), CLIENT, BAD_PASSWORD),
        (None, None, CLIENT, BAD_PASSWORD),
    ],
)
def test_refusals(user_name: str | None, password: Any, client_id: str, reason_code: int):
    assert code(World().judge(user_name, password, client_id)) == reason_code


def test_unknown_names_are_left_to_others_where_that_is_set():
    world = World(refuses_unknown=False)
    assert world.judge("alice", "secret") is None
    assert world.judge(None, None) is None


def test_rights_of_keys_are_narrower_rules():
    world = World()
    login = let_in(world.judge("Signature|PUB|mqtt-xxxxx", sign(SECRET, CLIENT)))
    assert {one.action for one in login.permissions} == {Action.PUBLISH}
    login = let_in(world.judge("Signature|SUB|mqtt-xxxxx", sign(SECRET, CLIENT)))
    assert login.permissions == (Permission(Action.SUBSCRIBE, "TopicA/#"),)


def test_many_clients_share_their_rules():
    world = World()
    first = let_in(world.judge("Signature|YYYYY|mqtt-xxxxx", sign(SECRET, CLIENT)))
    other = "GID_Test@@@0002"
    second = let_in(world.judge("Signature|YYYYY|mqtt-xxxxx", sign(SECRET, other), other))
    assert first.permissions is second.permissions


async def test_new_parent_topic_is_in_the_rules_of_the_next_login():
    world = World()
    let_in(world.judge("Signature|YYYYY|mqtt-xxxxx", sign(SECRET, CLIENT)))
    await world.registry.create_topic(INSTANCE, "TopicC")
    login = let_in(world.judge("Signature|YYYYY|mqtt-xxxxx", sign(SECRET, CLIENT)))
    assert Permission(Action.ALL, "TopicC/#") in login.permissions


def test_groups_and_topics_by_use():
    world = World()
    world.registry.auto_create_groups = world.registry.auto_create_topics = True
    login = let_in(world.judge("Signature|YYYYY|mqtt-xxxxx", sign(SECRET, "GID_New@@@1"), "GID_New@@@1"))
    assert login.permissions == (Permission(Action.ALL, "#"),)
    assert (INSTANCE, "GID_New") in world.registry.groups
    login = let_in(world.judge("Signature|SUB|mqtt-xxxxx", sign(SECRET, CLIENT)))
    assert login.permissions == (Permission(Action.SUBSCRIBE, "TopicA/#"),)


def test_wrong_signature_makes_no_group():
    world = World()
    world.registry.auto_create_groups = True
    assert code(world.judge("Signature|YYYYY|mqtt-xxxxx", "wrong", "GID_New@@@1")) == BAD_PASSWORD
    assert len(world.registry.groups) == 1


def test_listener_may_be_bound_to_an_instance():
    world = World(listener_instances={"second": "mqtt-other"})
    let_in(world.judge("Signature|YYYYY|mqtt-xxxxx", sign(SECRET, CLIENT)))
    assert code(world.judge("Signature|YYYYY|mqtt-xxxxx", sign(SECRET, CLIENT), listener="second")) == NOT_AUTHORIZED


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_one_token_logs_in_with_its_rules_and_peer_to_peer():
    world = World()
    login = let_in(world.judge("Token|YYYYY|mqtt-xxxxx", f"RW|{world.token(resources=('TopicA/testMq4Iot',))}"))
    assert login.permissions == (
        Permission(Action.SUBSCRIBE, "TopicA/testMq4Iot"),
        Permission(Action.PUBLISH, "TopicA/testMq4Iot"),
        Permission(Action.PUBLISH, "TopicA/p2p/#"),
    )


def test_peer_to_peer_may_need_a_resource_of_its_own():
    world = World(p2p_rights="resource")
    login = let_in(world.judge("Token|YYYYY|mqtt-xxxxx", f"RW|{world.token(resources=('TopicA/x',))}"))
    assert Permission(Action.PUBLISH, "TopicA/p2p/#") not in login.permissions


def test_two_tokens_log_in_together():
    world = World()
    read, write = world.token("R", ("TopicA/r",)), world.token("W", ("TopicB/w",))
    for password in (f"R|{read}|W|{write}", f"W|{write}|R|{read}"):
        login = let_in(world.judge("Token|YYYYY|mqtt-xxxxx", password))
        assert set(login.permissions) == {
            Permission(Action.SUBSCRIBE, "TopicA/r"),
            Permission(Action.PUBLISH, "TopicB/w"),
            Permission(Action.PUBLISH, "TopicB/p2p/#"),
        }
        assert set(login.tokens) == {"R", "W"}


def test_token_gives_what_its_type_says_and_no_more():
    world = World()
    login = let_in(world.judge("Token|YYYYY|mqtt-xxxxx", f"R|{world.token('RW')}"))
    assert {one.action for one in login.permissions} == {Action.SUBSCRIBE}
    assert code(world.judge("Token|YYYYY|mqtt-xxxxx", f"RW|{world.token('R')}")) == BAD_PASSWORD


def test_one_bad_token_spoils_the_others():
    world = World()
    good, bad = world.token("R"), world.token("W", expires_ms=world.now)
    assert code(world.judge("Token|YYYYY|mqtt-xxxxx", f"R|{good}|W|{bad}")) == BAD_PASSWORD
    assert code(world.judge("Token|YYYYY|mqtt-xxxxx", f"R|{good}|W|abc")) == BAD_PASSWORD


@pytest.mark.parametrize(
    ("changes", "user_name"),
    [
        ({"access_key_id": "PUB"}, "Token|YYYYY|mqtt-xxxxx"),
        ({"instance_id": "mqtt-other"}, "Token|YYYYY|mqtt-xxxxx"),
        ({"access_key_id": "OFF"}, "Token|OFF|mqtt-xxxxx"),
        ({"expires_ms": 1}, "Token|YYYYY|mqtt-xxxxx"),
    ],
)
def test_tokens_of_others_and_of_yesterday_are_refused(changes: dict[str, Any], user_name: str):
    world = World()
    assert code(world.judge(user_name, f"RW|{world.token(**changes)}")) == BAD_PASSWORD


def test_revoked_token_is_refused():
    world = World()
    text = world.token()
    let_in(world.judge("Token|YYYYY|mqtt-xxxxx", f"RW|{text}"))
    token = world.codec.read(text)
    world.registry.revocations.add(token.token_id, token.expires_ms)
    answer = world.judge("Token|YYYYY|mqtt-xxxxx", f"RW|{text}")
    assert code(answer) == BAD_PASSWORD
    assert text not in str(answer.reason)


def test_token_never_has_more_than_its_key_has_now():
    world = World()
    text = world.token("RW", ("TopicA/a", "TopicB/b", "TopicC/c"), access_key_id="SUB")
    login = let_in(world.judge("Token|SUB|mqtt-xxxxx", f"RW|{text}"))
    assert login.permissions == (Permission(Action.SUBSCRIBE, "TopicA/a"),)


# --- device credentials, custom identities, the login of 2017 ---------------------------------------------------------


async def test_device_credential_logs_its_one_client_in():
    world = World()
    credential = await world.registry.devices.register(INSTANCE, CLIENT)
    user_name = f"DeviceCredential|{credential.device_access_key_id}|{INSTANCE}"
    secret = credential.device_access_key_secret
    login = let_in(world.judge(user_name, sign(secret, CLIENT)))
    assert login.permissions == (Permission(Action.ALL, "TopicA/#"), Permission(Action.ALL, "TopicB/#"))
    other = "GID_Test@@@0002"
    assert code(world.judge(user_name, sign(secret, other), other)) == BAD_PASSWORD
    assert code(world.judge(user_name, sign("x", CLIENT))) == BAD_PASSWORD
    assert code(world.judge(user_name.replace(INSTANCE, "mqtt-other"), sign(secret, CLIENT))) == BAD_PASSWORD
    await world.registry.devices.refresh(INSTANCE, CLIENT)
    assert code(world.judge(user_name, sign(secret, CLIENT))) == BAD_PASSWORD


async def test_custom_identity_logs_in_by_its_way_of_signing():
    world = World()
    await world.registry.custom.add_identity(INSTANCE, "USER", "alice", SECRET)
    await world.registry.custom.add_identity(INSTANCE, "USER", "bob", SECRET, "SIGNED")
    await world.registry.custom.add_identity(INSTANCE, "CLIENT", "carol", SECRET, client_id="carols phone")
    let_in(world.judge("alice", SECRET, "any client"))
    assert code(world.judge("alice", "wrong", "any client")) == BAD_PASSWORD
    assert code(world.judge("alice", None, "any client")) == BAD_PASSWORD
    let_in(world.judge("bob", sign(SECRET, "any client"), "any client"))
    assert code(world.judge("bob", SECRET, "any client")) == BAD_PASSWORD
    let_in(world.judge("carol", SECRET, "carols phone"))
    assert code(world.judge("carol", SECRET, "another phone")) == BAD_PASSWORD
    assert code(world.judge("alice", SECRET, "")) == BAD_CLIENT_ID
    assert code(world.judge("alice", SECRET, "a#b")) == BAD_CLIENT_ID


async def test_custom_rules_deny_first_and_by_default():
    world = World()
    await world.registry.custom.add_identity(INSTANCE, "USER", "alice", SECRET)
    for topic, action, effect in (
        ("TopicA/#", "PUB_SUB", "ALLOW"),
        ("TopicA/private", "SUB", "DENY"),
        ("TopicC/#", "PUB", "ALLOW"),  # no such parent topic
    ):
        await world.registry.custom.put_permission(
            CustomPermission(
                instance_id=INSTANCE,
                identity="alice",
                identity_type="USER",
                topic=topic,
                permit_action=action,
                effect=effect,
            )
        )
    assert let_in(world.judge("alice", SECRET, "phone")).permissions == (
        Permission(Action.SUBSCRIBE, "TopicA/private", is_allowed=False),
        Permission(Action.ALL, "TopicA/#"),
        Permission(Action.PUBLISH, "TopicA/p2p/#"),
    )


async def test_blocked_client_is_refused_however_it_logs_in():
    world = World()
    await world.registry.custom.add_identity(INSTANCE, "USER", "alice", SECRET)
    await world.registry.custom.block(INSTANCE, CLIENT)
    assert code(world.judge("Signature|YYYYY|mqtt-xxxxx", sign(SECRET, CLIENT))) == BANNED
    assert code(world.judge("alice", SECRET)) == BANNED
    assert code(world.judge("alice", "wrong")) == BAD_PASSWORD


def test_legacy_signature_logs_in_where_that_is_on():
    login = let_in(World(legacy_signature=True).judge("YYYYY", "YRcXymreNmJUfwB8142smvKH8zE="))
    assert login.mode == "Legacy"
    assert Permission(Action.ALL, "TopicA/#") in login.permissions
    world = World(legacy_signature=True)
    assert code(world.judge("YYYYY", sign(SECRET, CLIENT))) == BAD_PASSWORD
    assert code(world.judge("NONE", sign(SECRET, "GID_Test"))) == BAD_PASSWORD
    assert code(world.judge("YYYYY", sign(SECRET, "plain"), "plain")) == BAD_CLIENT_ID


def test_legacy_token_client_may_do_nothing_until_its_token():
    login = let_in(World(legacy_token=True, legacy_token_timeout_s=2).judge(None, None))
    assert login.permissions == ()
    assert login.awaits_token_until_ms == 1_000_002_000
    assert code(World(legacy_token=True).judge(None, None, "plain")) == BAD_CLIENT_ID


def test_login_without_instance_needs_to_know_one():
    world = World(legacy_signature=True)
    world.registry.load(instances=[Instance(instance_id="mqtt-second")])
    assert code(world.judge("YYYYY", sign(SECRET, "GID_Test"))) == NOT_AUTHORIZED
    world = World(legacy_signature=True, custom_instance=INSTANCE)
    world.registry.load(instances=[Instance(instance_id="mqtt-second")])
    let_in(world.judge("YYYYY", sign(SECRET, "GID_Test")))


def test_rules_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rights, "_CACHED_MAXIMUM", 2)
    world = World()
    for key in ("YYYYY", "PUB", "SUB"):
        let_in(world.judge(f"Signature|{key}|mqtt-xxxxx", sign(SECRET, CLIENT)))
        assert 1 <= len(world.rights) <= 2
