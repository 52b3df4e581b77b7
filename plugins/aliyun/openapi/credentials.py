"""Actions on tokens and device credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..token_service import BAD_PARAMETER, ServiceError
from .errors import ApiError

if TYPE_CHECKING:
    from .call import Call

__all__ = [
    "apply_token",
    "find_device",
    "list_devices",
    "query_token",
    "refresh_device",
    "register_device",
    "revoke_token",
    "unregister_device",
]


async def apply_token(call: Call) -> dict[str, Any]:
    """Give a token (ApplyToken). ExpireTime: ms since 1970."""
    try:
        token = call.services.tokens.apply(
            call.key,
            instance_id=call.instance(),
            resources=call.text("Resources").split(","),
            actions=call.text("Actions"),
            expires_ms=call.number("ExpireTime"),
        )
    except ServiceError as error:
        raise ApiError(
            "ParameterCheckFailed" if error.code == BAD_PARAMETER else "PermissionCheckFailed", str(error)
        ) from error
    return {"Token": token}


async def query_token(call: Call) -> dict[str, Any]:
    """Say whether a token is good (QueryToken); one of another access key is not, for this one."""
    call.instance()
    try:
        call.services.tokens.query(call.key, call.text("Token"))
    except ServiceError:
        return {"TokenStatus": False}
    return {"TokenStatus": True}


async def revoke_token(call: Call) -> dict[str, Any]:
    """Revoke a token (RevokeToken)."""
    call.instance()
    try:
        await call.services.tokens.revoke(call.key, call.text("Token"))
    except ServiceError as error:
        raise ApiError("InvalidParameter.Token", str(error)) from error
    return {}


async def register_device(call: Call) -> dict[str, Any]:
    """Give a client a credential (RegisterDeviceCredential)."""
    found = await call.services.registry.devices.register(*_device(call))
    return {"DeviceCredential": found.as_result()}


async def find_device(call: Call) -> dict[str, Any]:
    """Return a client's credential, its secret included (GetDeviceCredential)."""
    return {"DeviceCredential": call.services.registry.devices.find(*_device(call)).as_result()}


async def refresh_device(call: Call) -> dict[str, Any]:
    """Give a client a new key pair (RefreshDeviceCredential)."""
    found = await call.services.registry.devices.refresh(*_device(call))
    return {"DeviceCredential": found.as_result()}


async def unregister_device(call: Call) -> dict[str, Any]:
    """Take a client's credential away (UnRegisterDeviceCredential)."""
    await call.services.registry.devices.unregister(*_device(call))
    return {}


async def list_devices(call: Call) -> dict[str, Any]:
    """List the clients of a group that have credentials, by pages (ListDeviceCredentialClientId)."""
    instance_id, group_id = call.instance(), call.own_group(call.text("GroupId"))
    call.manages()
    page = call.services.registry.devices.list_client_ids(
        instance_id,
        group_id,
        page_size=call.number("PageSize", 10),
        page=call.number("PageNo", 1),
        next_token=call.optional("NextToken"),
    )
    return {"DeviceCredentialClientIdList": page}


def _device(call: Call) -> tuple[str, str]:
    instance_id, client_id = call.instance(), call.own_client(call.text("ClientId"))
    call.manages()
    return instance_id, client_id
