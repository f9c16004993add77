"""Who looks at the pages, and what that person may see and do. Pure.

Easy Auth signs people in and says in a header who they are. What outsiders send in this header is
dropped by the platform only where Easy Auth is on, so it is believed only there:
https://learn.microsoft.com/azure/app-service/configure-authentication-user-identities
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec

from integration.core.errors import Issue, Rejected

PRINCIPAL_HEADER = "x-ms-client-principal"

# Characters of a name that are kept, and of a header that is read.
_MAX_NAME = 128
_MAX_HEADER = 64_000

# Where app roles stand if `role_typ` does not say it.
_ROLE_TYPES = ("roles", "http://schemas.microsoft.com/ws/2008/06/identity/claims/role")
_NAME_TYPES = ("preferred_username", "upn", "email", "name")

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Role(StrEnum):
    """App roles of the registration. Each includes the one before it, but for phi, which stands
    beside them: it shows patient data."""

    READER = "reader"
    OPERATOR = "operator"
    ADMIN = "admin"
    PHI = "phi"


_INCLUDED = {
    Role.READER: frozenset({Role.READER}),
    Role.OPERATOR: frozenset({Role.READER, Role.OPERATOR}),
    Role.ADMIN: frozenset({Role.READER, Role.OPERATOR, Role.ADMIN}),
    Role.PHI: frozenset({Role.PHI}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who is signed in. `name`: for the audit log and the corner of the page."""

    name: str
    roles: frozenset[Role]

    def can(self, role: Role) -> bool:
        """Whether the person has a role, or one that includes it."""
        return any(role in _INCLUDED[given] for given in self.roles)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """How people sign in. `easy_auth`: the platform does it; `is_open`: without, for a laptop."""

    easy_auth: bool
    is_open: bool


# Whoever can open a port of the laptop can read its files.
_LAPTOP = Person(name="laptop", roles=frozenset(Role))


class _Claim(msgspec.Struct):
    typ: str
    val: str


class _Principal(msgspec.Struct):
    claims: list[_Claim]
    name_typ: str = ""
    role_typ: str = ""


def identify_person(terms: SignIn, headers: dict[str, str], url: str) -> Person | None:
    """Return who asks; None: somebody who has to sign in. Header names are lower case.

    Raises Rejected with 403 where nobody can sign in.
    """
    if terms.easy_auth:
        principal = headers.get(PRINCIPAL_HEADER)
        return None if principal is None else _read_principal(principal)
    if not terms.is_open:
        text = (
            "these pages need people to sign in, and no sign-in is set up for this app: turn on "
            "its authentication (Easy Auth), as docs/pages.md says. On a laptop make start opens "
            "them"
        )
        raise Rejected(Issue("forbidden", text), status=403)
    # Another name for this address could be a page of somebody else, in the same browser:
    # https://en.wikipedia.org/wiki/DNS_rebinding
    if urlsplit(url).hostname not in _LOOPBACK:
        text = "without sign-in these pages are shown at 127.0.0.1 and localhost alone"
        raise Rejected(Issue("forbidden", text), status=403)
    return _LAPTOP


def _read_principal(header: str) -> Person:
    """Parse what the platform says. Raises Rejected with 403 for a principal without a role."""
    try:
        if len(header) > _MAX_HEADER:
            raise ValueError("the header is too long")
        principal = msgspec.json.decode(
            binascii.a2b_base64(header.encode(), strict_mode=True), type=_Principal
        )
    except (ValueError, msgspec.MsgspecError):
        text = "the platform's sign-in header cannot be read: sign out, and in again"
        raise Rejected(Issue("forbidden", text), status=403) from None
    role_types = {principal.role_typ, *_ROLE_TYPES}
    stated = {claim.val.lower() for claim in principal.claims if claim.typ in role_types}
    return Person(
        name=_find_name(principal), roles=frozenset(role for role in Role if role in stated)
    )


def _find_name(principal: _Principal) -> str:
    by_type = {claim.typ: claim.val for claim in reversed(principal.claims)}
    for type_ in (*_NAME_TYPES, principal.name_typ):
        name = "".join(char for char in by_type.get(type_, "") if char.isprintable()).strip()
        if name:
            return name[:_MAX_NAME]
    return "unknown"
