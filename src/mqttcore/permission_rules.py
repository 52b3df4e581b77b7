"""Permissions as other systems write them down in JSON: tokens' claims and answers of authentication services."""

from collections.abc import Mapping, Sequence
from typing import Any

from mqttcore.codec.names import require_topic_filter
from mqttcore.errors import ProtocolError
from mqttcore.identity import Action, Permission

__all__ = ["parse_permissions"]

_ACTIONS = {
    "publish": Action.PUBLISH,
    "pub": Action.PUBLISH,
    "subscribe": Action.SUBSCRIBE,
    "sub": Action.SUBSCRIBE,
    "all": Action.ALL,
}
_EFFECTS = {"allow": True, "deny": False}


def parse_permissions(rules: Any, *, rules_maximum: int = 1000) -> tuple[Permission, ...]:
    """Return the permissions in decoded JSON, in order.

    rules: a list of `{"effect": "allow", "action": ["publish", "subscribe"], "topic": "a/#"}` (ALIYUN.md §2.5; EMQX
    says
    `permission` for `effect`, gives one action or "all", and may add `qos`, a number or a list, and `retain`), or an
    object
    `{"pub": [filters], "sub": [filters], "all": [filters]}`, which only allows. `${clientid}` and `${username}`
    stand for
    `%c` and `%u`. Raises ValueError that names the place; an unknown key is one, for it might have been a restriction.
    """
    if isinstance(rules, Mapping):
        found = [
            Permission(_action(word, f"acl.{word}"), _filter(text, f"acl.{word}[{index}]"))
            for word, filters in rules.items()
            for index, text in enumerate(_list(filters, f"acl.{word}"))
        ]
    else:
        found = [
            permission
            for index, rule in enumerate(_list(rules, "acl"))
            for permission in _of_rule(rule, f"acl[{index}]")
        ]
    if len(found) > rules_maximum:
        raise ValueError(f"acl: {len(found)} rules, {rules_maximum} at most")
    return tuple(found)


def _of_rule(rule: Any, where: str) -> list[Permission]:
    if not isinstance(rule, Mapping):
        raise ValueError(f"{where}: not an object")
    unknown = rule.keys() - {"effect", "permission", "action", "topic", "qos", "retain"}
    if unknown:
        raise ValueError(f"{where}: unknown key {min(unknown)!r}")
    effect = rule.get("effect", rule.get("permission"))
    if effect not in _EFFECTS:
        raise ValueError(f"{where}: effect is not allow or deny")
    actions = rule.get("action", "all")
    action = Action(0)
    for word in [actions] if isinstance(actions, str) else _list(actions, f"{where}.action"):
        action |= _action(word, f"{where}.action")
    if not action:
        raise ValueError(f"{where}: no action")
    topics = rule.get("topic")
    return [
        Permission(action, _filter(text, f"{where}.topic"), _EFFECTS[effect], _qos(rule, where), _retain(rule, where))
        for text in ([topics] if isinstance(topics, str) else _list(topics, f"{where}.topic"))
    ]


def _qos(rule: Mapping[str, Any], where: str) -> int:
    qos = rule.get("qos", 2)
    levels = [qos] if isinstance(qos, int) else _list(qos, f"{where}.qos")
    if not levels or not all(type(level) is int and 0 <= level <= 2 for level in levels):
        raise ValueError(f"{where}.qos: not 0, 1 or 2")
    return max(levels)


def _retain(rule: Mapping[str, Any], where: str) -> bool:
    retain = rule.get("retain", True)
    if isinstance(retain, bool):
        return retain
    if retain in ("all", "true", "false"):
        return bool(retain != "false")
    raise ValueError(f'{where}.retain: not true, false or "all"')


def _action(word: Any, where: str) -> Action:
    if not isinstance(word, str) or word not in _ACTIONS:
        raise ValueError(f"{where}: {word!r} is not publish, subscribe or all")
    return _ACTIONS[word]


def _list(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}: not a list")
    return value


def _filter(text: Any, where: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{where}: not a text")
    topic_filter = str(text).replace("${clientid}", "%c").replace("${username}", "%u")
    try:
        require_topic_filter(topic_filter)
    except ProtocolError as error:
        raise ValueError(f"{where}: {topic_filter!r}: {error.text}") from None
    return topic_filter
