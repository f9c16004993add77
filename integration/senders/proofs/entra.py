"""The scheme `entra`: App Service has authenticated the caller at Microsoft Entra. Pure.

https://learn.microsoft.com/azure/app-service/configure-authentication-user-identities: the platform
sets the header, and takes away what callers put there, but only where authentication is on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from integration.senders.proofs.proof import Proof, Proven, Secrets, SignedRequest, Unproven
from integration.senders.proofs.reading import decode_base64, read_header, refuse_secrets

Guid = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]
Role = Annotated[str, Meta(min_length=1)]

_HEADER = "X-MS-CLIENT-PRINCIPAL"
# A person of many groups has many claims.
_MAX_HEADER = 32_768

# The platform passes claims on by the names of tokens, or by those of an older mapping.
_TENANT = ("tid", "http://schemas.microsoft.com/identity/claims/tenantid")
_OBJECT = ("oid", "http://schemas.microsoft.com/identity/claims/objectidentifier")
_APP = ("appid", "azp")
_ROLES = ("roles", "http://schemas.microsoft.com/ws/2008/06/identity/claims/role")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entra(Proof):
    """A managed identity, an app or a person of a tenant, where the app has App Service
    authentication switched on (WEBSITE_AUTH_ENABLED); anywhere else nothing is proven. Who is
    meant is named by `objects` or `apps`, by `roles`, or by both."""

    tenant: Guid
    """The id of the tenant."""

    objects: tuple[Guid, ...] = ()
    """Object ids (claim `oid`) of those who may send."""

    apps: tuple[Guid, ...] = ()
    """Client ids (claim `appid` or `azp`) of apps that may send, besides `objects`. Whoever signs
    in through such an app counts, too: the object id of a service principal is narrower."""

    roles: tuple[Role, ...] = ()
    """App roles of which the caller must have one, even if `objects` or `apps` name it."""

    def __post_init__(self) -> None:
        refuse_secrets(self)
        if not (self.objects or self.apps or self.roles):
            raise ValueError("objects, apps, roles: name at least one")


@dataclass(frozen=True, slots=True)
class _Claim:
    typ: str
    val: str


@dataclass(frozen=True, slots=True)
class _Principal:
    auth_typ: str
    claims: list[_Claim]
    role_typ: str | None = None


def verify(proof: Entra, secrets: Secrets, request: SignedRequest, now: datetime) -> Proven:
    """Return the caller's object id, or else its client id. Raises Unproven."""
    if not secrets.easy_auth:
        raise Unproven("App Service authentication is off, so that the header proves nothing")
    principal = _read_principal(request)
    if principal.auth_typ != "aad":
        raise Unproven("the caller is authenticated by another provider than Entra")
    if _find_only(principal, _TENANT) != proof.tenant.lower():
        raise Unproven("the caller is of another tenant")
    caller, app = _find_only(principal, _OBJECT), _find_only(principal, _APP)
    objects = {name.lower() for name in proof.objects}
    apps = {name.lower() for name in proof.apps}
    if (objects or apps) and caller not in objects and app not in apps:
        raise Unproven("the caller is none of those who may send")
    if proof.roles and not set(proof.roles) & _find_roles(principal):
        raise Unproven("the caller has none of the roles that may send")
    if not (caller or app):
        raise Unproven("the caller has neither an object id nor a client id")
    return Proven(principal=caller or app)


def check_secrets(proof: Entra, secrets: Secrets) -> list[str]:
    """Return that App Service authentication is off, if it is."""
    return [] if secrets.easy_auth else ["App Service authentication is off: switch it on"]


def _read_principal(request: SignedRequest) -> _Principal:
    value = decode_base64(read_header(request, _HEADER, _MAX_HEADER))
    try:
        return msgspec.json.decode(value or b"", type=_Principal)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise Unproven(f"the header {_HEADER} is not what App Service sends") from None


def _find_only(principal: _Principal, names: tuple[str, ...]) -> str | None:
    """Return the one value of a claim in lower case, None if there is none or there are several."""
    found = {claim.val.lower() for claim in principal.claims if claim.typ in names}
    return next(iter(found)) if len(found) == 1 and "" not in found else None


def _find_roles(principal: _Principal) -> set[str]:
    names = {*_ROLES, principal.role_typ}
    return {claim.val for claim in principal.claims if claim.typ in names}
