"""The actions by name, with the setting that says how often each may be called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from . import clients, credentials, custom, ons

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .call import Call

__all__ = ["ACTIONS", "VERSIONS", "Action"]

_OLD_VERSIONS = ("2017-09-18", "2018-02-05", "2018-05-16", "2018-10-15", "2019-02-14")


class Action(NamedTuple):
    """One action. rate: name of the setting that holds its calls in a second, or in a minute, as the name says."""

    run: Callable[[Call], Awaitable[dict[str, Any]]]
    rate: str = "other_calls_per_s"


_PRESENT = {
    "QuerySessionByClientId": Action(clients.query_session, "session_queries_per_s"),
    "BatchQuerySessionByClientIds": Action(clients.batch_query_sessions, "batch_queries_per_s"),
    "CloseConnection": Action(clients.close_connection),
    "SendMessage": Action(clients.send_message, "messages_per_s"),
    "ListInstances": Action(clients.list_instances),
    "CreateGroupId": Action(clients.create_group),
    "DeleteGroupId": Action(clients.delete_group),
    "ListGroupId": Action(clients.list_groups),
    "ApplyToken": Action(credentials.apply_token, "token_calls_per_s"),
    "QueryToken": Action(credentials.query_token, "token_calls_per_s"),
    "RevokeToken": Action(credentials.revoke_token, "token_calls_per_s"),
    "RegisterDeviceCredential": Action(credentials.register_device, "device_calls_per_s"),
    "GetDeviceCredential": Action(credentials.find_device, "device_calls_per_s"),
    "RefreshDeviceCredential": Action(credentials.refresh_device, "device_calls_per_s"),
    "UnRegisterDeviceCredential": Action(credentials.unregister_device, "device_calls_per_s"),
    "ListDeviceCredentialClientId": Action(credentials.list_devices, "device_calls_per_s"),
    "AddCustomAuthIdentity": Action(custom.add_identity),
    "UpdateCustomAuthIdentity": Action(custom.update_identity),
    "DeleteCustomAuthIdentity": Action(custom.delete_identity),
    "QueryCustomAuthIdentity": Action(custom.query_identities),
    "AddCustomAuthPermission": Action(custom.add_permission),
    "UpdateCustomAuthPermission": Action(custom.update_permission),
    "DeleteCustomAuthPermission": Action(custom.delete_permission),
    "QueryCustomAuthPermission": Action(custom.query_permissions),
    "AddCustomAuthConnectBlack": Action(custom.block),
    "DeleteCustomAuthConnectBlack": Action(custom.unblock),
    "QueryCustomAuthConnectBlack": Action(custom.query_blocked),
}

_OLD = {
    "OnsMqttQueryClientByClientId": Action(ons.find_client, "old_calls_per_minute"),
    "OnsMqttQueryClientByGroupId": Action(ons.count_of_group, "old_calls_per_minute"),
    "OnsMqttQueryClientByTopic": Action(ons.count_of_topic, "old_calls_per_minute"),
    "OnsMqttGroupIdCreate": Action(ons.create_group, "old_calls_per_minute"),
    "OnsMqttGroupIdDelete": Action(ons.delete_group, "old_calls_per_minute"),
    "OnsMqttGroupIdList": Action(ons.list_groups, "old_calls_per_minute"),
}

ACTIONS = _PRESENT | _OLD

# Version -> its actions.
VERSIONS = {"2020-04-20": _PRESENT} | dict.fromkeys(_OLD_VERSIONS, _OLD)
