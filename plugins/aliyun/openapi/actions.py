"""The actions by name, with the setting that says how often each may be called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from . import clients, credentials, custom

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .call import Call

__all__ = ["ACTIONS", "VERSION", "Action"]

VERSION = "2020-04-20"


class Action(NamedTuple):
    """One action. rate: name of the setting that holds its calls in a second."""

    run: Callable[[Call], Awaitable[dict[str, Any]]]
    rate: str = "other_calls_per_s"


ACTIONS = {
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
