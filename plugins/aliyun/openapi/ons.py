"""Actions of the product before, Ons, versions 2017-09-18 to 2019-02-14: clients, counts by group and topic, groups."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mqttcore import MqttCoreError

from ..names import group_of, parent_of
from ..presence import REGISTER
from .clients import is_online
from .errors import ApiError

if TYPE_CHECKING:
    from ..online import Counts, OnlineRegister
    from .call import Call

__all__ = ["count_of_group", "count_of_topic", "create_group", "delete_group", "find_client", "list_groups"]

_IN_USE = 0


async def find_client(call: Call) -> dict[str, Any]:
    """Tell of a client (OnsMqttQueryClientByClientId). LastTouch: when it last connected, ms since 1970; 0: unknown.

    Its session counts when it is of the instance; that of a client that is away is known by its group alone.
    """
    instance_id = _instance(call)
    client_id = call.own_client(call.text("ClientId"))
    broker, registry = call.services.broker, call.services.registry
    client = broker.client(client_id)
    identity = broker.identity(client_id)
    is_of_instance = (
        identity.attributes.get("instance_id") == instance_id
        if identity is not None
        else (instance_id, group_of(client_id) or "") in registry.groups
    )
    found: dict[str, Any] = {"ClientId": client_id, "Online": False, "SocketChannel": "", "LastTouch": 0}
    subscriptions: list[dict[str, Any]] = []
    if client is not None and is_of_instance:
        found["Online"] = is_online(call, instance_id, client_id)
        if isinstance(client.address, tuple):
            found["SocketChannel"] = f"{client.address[0]}:{client.address[1]}"
        if client.is_connected:
            found["LastTouch"] = registry.now_ms() - round((time.monotonic() - client.connected_s) * 1000)
        for one in broker.subscriptions(client_id=client_id):
            is_shared = one.topic_filter.startswith("$share/")
            bare = one.topic_filter.split("/", 2)[-1] if is_shared else one.topic_filter
            parent = parent_of(bare)
            subscriptions.append({"ParentTopic": parent, "SubTopic": bare[len(parent) :], "Qos": one.qos})
    found["SubScriptonData"] = {"SubscriptionDo": subscriptions}  # the service's spelling
    return _said(MqttClientInfoDo=found)


async def count_of_group(call: Call) -> dict[str, Any]:
    """Count the clients of a group (OnsMqttQueryClientByGroupId)."""
    instance_id, group_id = _instance(call), call.own_group(call.text("GroupId"))
    if (instance_id, group_id) not in call.services.registry.groups:
        raise ApiError("BIZ_FIELD_CHECK_INVALID", f"there is no group {group_id}")
    return _counted(_register(call).of_group(group_id))


async def count_of_topic(call: Call) -> dict[str, Any]:
    """Count the clients that subscribed with exactly this filter (OnsMqttQueryClientByTopic)."""
    instance_id, parent = _instance(call), call.text("ParentTopic")
    sub_topic = call.optional("SubTopic") or ""
    if not call.key.owns_topic(parent) or (instance_id, parent) not in call.services.registry.topics:
        raise ApiError("BIZ_TOPIC_NOT_FOUND", "there is no such parent topic, or it is not the access key's")
    if sub_topic and not sub_topic.startswith("/"):
        sub_topic = f"/{sub_topic}"
    return _counted(_register(call).of_filter(parent + sub_topic))


async def create_group(call: Call) -> dict[str, Any]:
    """Create a group (OnsMqttGroupIdCreate)."""
    instance_id, group_id = _instance(call), call.own_group(call.text("GroupId"))
    call.manages()
    await call.services.registry.create_group(instance_id, group_id)
    return _said()


async def delete_group(call: Call) -> dict[str, Any]:
    """Delete a group (OnsMqttGroupIdDelete)."""
    instance_id, group_id = _instance(call), call.own_group(call.text("GroupId"))
    call.manages()
    await call.services.registry.delete_group(instance_id, group_id)
    return _said()


async def list_groups(call: Call) -> dict[str, Any]:
    """List the groups of an instance that the key is good for (OnsMqttGroupIdList)."""
    found = [
        {
            "GroupId": one.group_id,
            "InstanceId": one.instance_id,
            "Status": _IN_USE,
            "CreateTime": one.created_ms,
            "UpdateTime": one.updated_ms,
            "IndependentNaming": True,
        }
        for one in call.services.registry.list_groups(_instance(call))
        if call.key.owns_group(one.group_id)
    ]
    return _said(Data={"MqttGroupIdDo": found})


def _instance(call: Call) -> str:
    """Return the instance; calls of 2017 name none, and mean the only one that their key is good for."""
    if call.optional("InstanceId") is not None:
        return call.instance()
    usable = [one.instance_id for one in call.services.registry.instances if call.key.may_use(one.instance_id)]
    if len(usable) != 1:
        raise ApiError("InvalidParameter.InstanceId", "InstanceId is missing, and the access key is good for several")
    return usable[0]


def _register(call: Call) -> OnlineRegister:
    try:
        register: OnlineRegister = call.services.broker.service(REGISTER)
    except MqttCoreError as error:
        raise ApiError("ONS_INVOKE_ERROR", "nothing is counted without [plugins.presence]") from error
    return register


def _counted(counts: Counts) -> dict[str, Any]:
    if counts.online < 0:
        raise ApiError("ONS_SYSTEM_ERROR", "there are more clients or filters than are counted")
    return _said(MqttClientSetDo={"OnlineCount": counts.online, "PersistCount": counts.persistent})


def _said(**found: Any) -> dict[str, Any]:
    return {"HelpUrl": "", **found}
