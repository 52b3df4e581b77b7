"""Actions on custom authentication: identities, what they may do, and clients that may not connect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ..records import CustomPermission, IdentityType, SignMode
from .errors import ApiError

if TYPE_CHECKING:
    from ..custom_auth import CustomAuth
    from .call import Call

__all__ = [
    "add_identity",
    "add_permission",
    "block",
    "delete_identity",
    "delete_permission",
    "query_blocked",
    "query_identities",
    "query_permissions",
    "unblock",
    "update_identity",
    "update_permission",
]

_DONE = {"Code": 200, "Message": "success", "Success": True}
_PAGE = 100


async def add_identity(call: Call) -> dict[str, Any]:
    """Add an identity (AddCustomAuthIdentity)."""
    custom, instance_id = _custom(call)
    await custom.add_identity(instance_id, *_identity(call), *_secret(call), call.optional("ClientId") or "")
    return _DONE


async def update_identity(call: Call) -> dict[str, Any]:
    """Replace an identity's secret and way of signing (UpdateCustomAuthIdentity)."""
    custom, instance_id = _custom(call)
    await custom.update_identity(instance_id, *_identity(call), *_secret(call), call.optional("ClientId") or "")
    return _DONE


async def delete_identity(call: Call) -> dict[str, Any]:
    """Remove an identity with its permissions (DeleteCustomAuthIdentity)."""
    custom, instance_id = _custom(call)
    await custom.delete_identity(instance_id, *_identity(call), call.optional("ClientId") or "")
    return _DONE


async def query_identities(call: Call) -> dict[str, Any]:
    """List identities without their secrets (QueryCustomAuthIdentity)."""
    custom, instance_id = _custom(call)
    return _DONE | {
        "Data": custom.query_identities(
            instance_id,
            identity_type=call.optional("IdentityType"),
            user_name=call.optional("Username"),
            client_id=call.optional("ClientId"),
            page_size=call.number("Size", _PAGE),
            next_token=call.optional("NextToken"),
        )
    }


async def add_permission(call: Call) -> dict[str, Any]:
    """Add a rule (AddCustomAuthPermission)."""
    custom, instance_id = _custom(call)
    await custom.put_permission(_permission(call, instance_id), is_new=True)
    return _DONE


async def update_permission(call: Call) -> dict[str, Any]:
    """Replace a rule (UpdateCustomAuthPermission)."""
    custom, instance_id = _custom(call)
    await custom.put_permission(_permission(call, instance_id), is_new=False)
    return _DONE


async def delete_permission(call: Call) -> dict[str, Any]:
    """Remove a rule (DeleteCustomAuthPermission)."""
    custom, instance_id = _custom(call)
    await custom.delete_permission(instance_id, _type(call), call.text("Identity"), call.text("Topic"))
    return _DONE


async def query_permissions(call: Call) -> dict[str, Any]:
    """List rules (QueryCustomAuthPermission)."""
    custom, instance_id = _custom(call)
    return _DONE | {
        "Data": custom.query_permissions(
            instance_id,
            identity_type=call.optional("IdentityType"),
            identity=call.optional("Identity"),
            topic=call.optional("Topic"),
            page_size=call.number("Size", _PAGE),
            next_token=call.optional("NextToken"),
        )
    }


async def block(call: Call) -> dict[str, Any]:
    """Keep a client from connecting (AddCustomAuthConnectBlack)."""
    custom, instance_id = _custom(call)
    await custom.block(instance_id, call.text("ClientId"))
    return _DONE


async def unblock(call: Call) -> dict[str, Any]:
    """Let a client connect again (DeleteCustomAuthConnectBlack)."""
    custom, instance_id = _custom(call)
    await custom.unblock(instance_id, call.text("ClientId"))
    return _DONE


async def query_blocked(call: Call) -> dict[str, Any]:
    """List clients that may not connect (QueryCustomAuthConnectBlack)."""
    custom, instance_id = _custom(call)
    return _DONE | {
        "Data": custom.query_blocked(
            instance_id,
            client_id=call.optional("ClientId"),
            page_size=call.number("Size", _PAGE),
            next_token=call.optional("NextToken"),
        )
    }


def _custom(call: Call) -> tuple[CustomAuth, str]:
    instance_id = call.instance()
    call.manages(everything=True)
    return call.services.registry.custom, instance_id


def _type(call: Call) -> IdentityType:
    identity_type = call.text("IdentityType")
    if identity_type not in ("USER", "CLIENT"):
        raise ApiError("InvalidParameter.IdentityType", "the identity type is neither USER nor CLIENT")
    return cast("IdentityType", identity_type)


def _identity(call: Call) -> tuple[IdentityType, str]:
    return _type(call), call.text("Username")


def _secret(call: Call) -> tuple[str, SignMode]:
    sign_mode = call.optional("SignMode") or "ORIGIN"
    if sign_mode not in ("ORIGIN", "SIGNED"):
        raise ApiError("InvalidParameter.SignMode", "the sign mode is neither ORIGIN nor SIGNED")
    return call.text("Secret"), cast("SignMode", sign_mode)


def _permission(call: Call, instance_id: str) -> CustomPermission:
    return CustomPermission(
        instance_id=instance_id,
        identity=call.text("Identity"),
        identity_type=_type(call),
        topic=call.text("Topic"),
        permit_action=cast("Any", call.text("PermitAction")),  # the registry looks at both
        effect=cast("Any", call.text("Effect")),
    )
