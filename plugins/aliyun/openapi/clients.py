"""Actions on instances, groups, clients and messages."""

from __future__ import annotations

import binascii
import uuid
from typing import TYPE_CHECKING, Any

from mqttcore import QuotaExceeded, ReasonCode

from ..names import is_resource, parent_of
from .errors import ApiError

if TYPE_CHECKING:
    from .call import Call

__all__ = [
    "batch_query_sessions",
    "close_connection",
    "create_group",
    "delete_group",
    "is_online",
    "list_groups",
    "list_instances",
    "query_session",
    "send_message",
]

_BATCH_MAXIMUM = 10
_RUNNING = 5


async def query_session(call: Call) -> dict[str, Any]:
    """Say whether a client is online (QuerySessionByClientId)."""
    instance_id = call.instance()
    return {"OnlineStatus": is_online(call, instance_id, call.own_client(call.text("ClientId")))}


async def batch_query_sessions(call: Call) -> dict[str, Any]:
    """Say which of up to 10 clients are online (BatchQuerySessionByClientIds)."""
    instance_id = call.instance()
    names = [name for name in call.parameters if name.startswith("ClientIdList.")]
    wanted = [f"ClientIdList.{number}" for number in range(1, len(names) + 1)]
    if not 1 <= len(names) <= _BATCH_MAXIMUM or set(names) != set(wanted):
        raise ApiError("InvalidParameter.ClientIdList", f"ClientIdList.1 to ClientIdList.{_BATCH_MAXIMUM}, no gaps")
    client_ids = [call.own_client(call.text(name)) for name in wanted]
    found = [{"ClientId": one, "OnlineStatus": is_online(call, instance_id, one)} for one in client_ids]
    return {"OnlineStatusList": found}


async def close_connection(call: Call) -> dict[str, Any]:
    """Close a client's connection (CloseConnection); its session goes on. One that is not there is no error."""
    instance_id = call.instance()
    client_id = call.own_client(call.text("ClientId"))
    call.manages()
    if is_online(call, instance_id, client_id):
        call.services.broker.disconnect(client_id, ReasonCode.ADMINISTRATIVE_ACTION, "closed by CloseConnection")
    return {"Code": 200, "Message": "success", "Success": True}


async def send_message(call: Call) -> dict[str, Any]:
    """Publish a message (SendMessage), to one client as well: `<parent>/p2p/<client id>`."""
    services = call.services
    instance_id = call.instance()
    topic, payload = call.text("MqttTopic"), call.parameters.get("Payload")
    config, parent = services.config, parent_of(topic)
    if (
        not is_resource(topic, length_maximum=config.topic_length_maximum, any_character=True)
        or topic.startswith("$")
        or any(wildcard in topic for wildcard in "+#")
    ):
        raise ApiError("InvalidParameter.MqttTopic", "no topic below a parent topic, or too long a one")
    if payload is None:
        raise ApiError("InvalidParameter.Payload", "Payload is missing")
    if (
        call.key.rights not in ("full", "publish")
        or not call.key.owns_topic(parent)
        or not services.registry.take_topic(instance_id, parent)
    ):
        raise ApiError("PermissionCheckFailed", "the access key may not publish to this topic")
    try:
        data = binascii.a2b_base64(payload, strict_mode=True) if config.decodes_base64 else payload.encode()
    except ValueError as error:
        raise ApiError("InvalidParameter.Payload", "Payload is no Base64") from error
    if len(data) > config.payload_bytes_maximum:
        raise ApiError("InvalidParameter.Payload", f"over {config.payload_bytes_maximum} bytes")
    try:
        await services.broker.publish(topic, data, qos=config.message_qos)
    except ValueError as error:
        raise ApiError("InvalidParameter.MqttTopic", "no topic that can be published to") from error
    except QuotaExceeded as error:
        raise ApiError("Throttling", "a subscriber's queue is full, try again later") from error
    return {"MsgId": uuid.uuid4().hex.upper()}


async def create_group(call: Call) -> dict[str, Any]:
    """Create a group (CreateGroupId)."""
    instance_id, group_id = call.instance(), call.own_group(call.text("GroupId"))
    call.manages()
    await call.services.registry.create_group(instance_id, group_id)
    return {}


async def delete_group(call: Call) -> dict[str, Any]:
    """Delete a group (DeleteGroupId)."""
    instance_id, group_id = call.instance(), call.own_group(call.text("GroupId"))
    call.manages()
    await call.services.registry.delete_group(instance_id, group_id)
    return {}


async def list_groups(call: Call) -> dict[str, Any]:
    """List the groups of an instance that the key is good for (ListGroupId)."""
    found = call.services.registry.list_groups(call.instance())
    return {"Data": [one.as_result() for one in found if call.key.owns_group(one.group_id)]}


async def list_instances(call: Call) -> dict[str, Any]:
    """List the instances that the key is good for (ListInstances)."""
    found = [one for one in call.services.registry.instances if call.key.may_use(one.instance_id)]
    instances = [
        {
            "InstanceId": one.instance_id,
            "InstanceName": one.instance_id,
            "InstanceStatus": _RUNNING,
            "RegionId": call.services.config.region,
            "CreateTime": one.created_ms,
            "MqttTags": [],
        }
        for one in found
    ]
    return {"Code": "200", "Message": "success", "Success": "true", "Instances": instances}


def is_online(call: Call, instance_id: str, client_id: str) -> bool:
    """Say whether a client of this instance has a connection."""
    if not call.services.broker.is_connected(client_id):
        return False
    identity = call.services.broker.identity(client_id)  # client ids are the broker's, not an instance's
    return identity is not None and identity.attributes.get("instance_id") == instance_id
