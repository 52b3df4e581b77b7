"""Permissions: what the rights of keys, tokens and custom identities come to as rules of an `Identity`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mqttcore import Action, Permission

from .matching import covers
from .names import parent_of
from .tokens import TokenFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .records import AccessKey, CustomPermission, Rights
    from .registry import Registry
    from .tokens import Token

__all__ = ["RightsOf", "p2p_filter"]

_ACTIONS = {"full": Action.ALL, "publish": Action.PUBLISH, "subscribe": Action.SUBSCRIBE}
_CUSTOM_ACTIONS = {"PUB": Action.PUBLISH, "SUB": Action.SUBSCRIBE, "PUB_SUB": Action.ALL}
_CACHED_MAXIMUM = 10_000


def p2p_filter(parent_topic: str, word: str = "p2p", level: int = 2) -> str:
    """Return the filter of messages to single clients below a parent topic."""
    if level == 1:
        return f"{word}/#"
    return "/".join([parent_topic, *["+"] * (level - 2), word, "#"])


class RightsOf:
    """Makes the permissions of a registry's records.

    p2p_follows_parent: who may publish anywhere below a parent topic may send to single clients there. word, level: of
    those topics. The rules of access keys are made once and kept until the registry changes: many clients have them.
    """

    def __init__(
        self, registry: Registry, *, p2p_follows_parent: bool = True, word: str = "p2p", level: int = 2
    ) -> None:
        self._registry = registry
        self._p2p_follows_parent = p2p_follows_parent
        self._word = word
        self._level = level
        self._made: dict[tuple[str, Rights, tuple[str, ...]], tuple[Permission, ...]] = {}
        self._generation = -1

    def __len__(self) -> int:
        """Return how many sets of rules are kept."""
        return len(self._made)

    def of_key(self, key: AccessKey, instance_id: str) -> tuple[Permission, ...]:
        """Return the rules of an access key: its rights on its parent topics that there are."""
        if self._generation != self._registry.generation or len(self._made) >= _CACHED_MAXIMUM:
            self._made.clear()
            self._generation = self._registry.generation
        same = (instance_id, key.rights, key.topics)
        found = self._made.get(same)
        if found is None:
            found = self._made[same] = tuple(
                Permission(_ACTIONS[key.rights], topic_filter) for topic_filter in self._filters(key, instance_id)
            )
        return found

    def of_tokens(self, tokens: Iterable[tuple[str, Token]], key: AccessKey) -> tuple[Permission, ...]:
        """Return the rules of tokens, given with their declared types; never more than their access key's rights."""
        rules: dict[Permission, None] = {}  # in order, none twice
        allowed = _ACTIONS[key.rights]
        for token_type, token in tokens:
            for resource in token.resources:
                parent = parent_of(resource)
                if not key.owns_topic(parent) or not self._is_topic(token.instance_id, parent):
                    continue
                if "R" in token_type and Action.SUBSCRIBE in allowed:
                    rules[Permission(Action.SUBSCRIBE, resource)] = None
                if "W" in token_type and Action.PUBLISH in allowed:
                    rules[Permission(Action.PUBLISH, resource)] = None
                    if self._p2p_follows_parent:
                        rules[Permission(Action.PUBLISH, p2p_filter(parent, self._word, self._level))] = None
        return tuple(rules)

    def fault(self, tokens: Mapping[str, Token], action: Action, topic: str) -> tuple[int, str]:
        """Return why tokens were not enough, a code of `TokenFault`, and the type of the token that it is about.

        tokens: by declared type, at least one. topic: a Topic Name or, to subscribe to, a Topic Filter.
        """
        letter = "W" if action is Action.PUBLISH else "R"
        by_action = [token_type for token_type in tokens if letter in token_type]
        covering = [token_type for token_type, token in tokens.items() if self._covers(token, action, topic)]
        if not covering:
            return TokenFault.RESOURCE, next(iter(by_action or tokens))
        both = [token_type for token_type in covering if token_type in by_action]
        # A token that allows it and yet is not enough: its access key has no such right, or the parent topic is gone.
        return (TokenFault.NOT_PERMITTED, both[0]) if both else (TokenFault.ACTION, covering[0])

    def _covers(self, token: Token, action: Action, topic: str) -> bool:
        if token.covers(topic):
            return True
        return (
            action is Action.PUBLISH
            and self._p2p_follows_parent
            and any(covers(p2p_filter(parent_of(one), self._word, self._level), topic) for one in token.resources)
        )

    def of_custom(self, permissions: Iterable[CustomPermission], instance_id: str) -> tuple[Permission, ...]:
        """Return the rules of a custom identity: what is denied before what is allowed; all else is denied."""
        denied: list[Permission] = []
        allowed: dict[Permission, None] = {}
        for one in permissions:
            action, parent = _CUSTOM_ACTIONS[one.permit_action], parent_of(one.topic)
            if one.effect == "DENY":
                denied.append(Permission(action, one.topic, is_allowed=False))
            elif self._is_topic(instance_id, parent):
                allowed[Permission(action, one.topic)] = None
                if Action.PUBLISH in action and self._p2p_follows_parent:
                    allowed[Permission(Action.PUBLISH, p2p_filter(parent, self._word, self._level))] = None
        return (*denied, *allowed)

    def _is_topic(self, instance_id: str, parent_topic: str) -> bool:
        return self._registry.auto_create_topics or (instance_id, parent_topic) in self._registry.topics

    def _filters(self, key: AccessKey, instance_id: str) -> list[str]:
        if self._registry.auto_create_topics:
            parents = list(key.topics)
            if not parents:
                return ["#"]
        else:
            parents = [topic for topic in self._registry.topics_of(instance_id) if key.owns_topic(topic)]
        filters = [f"{parent}/#" for parent in parents]
        if filters and self._level == 1 and self._p2p_follows_parent:
            filters.append(p2p_filter("", self._word, self._level))
        return filters
