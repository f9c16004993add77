"""The organization, its users, and the optional parameters of a request.

https://learn.microsoft.com/power-apps/developer/data-platform/optional-parameters
https://learn.microsoft.com/power-apps/developer/data-platform/webapi/impersonate-another-user-web-api
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from local.dataverse import refusals
from local.dataverse.addresses import is_guid, normalize_guid

# The caller, its business unit and its organization, as WhoAmI returns them.
USER = "5f1c2f0e-7a4b-4c0e-9d55-0a1b2c3d4e01"
BUSINESS_UNIT = "5f1c2f0e-7a4b-4c0e-9d55-0a1b2c3d4e02"
ORGANIZATION = "5f1c2f0e-7a4b-4c0e-9d55-0a1b2c3d4e03"

# The header of a test that names the user whose token the caller has, if it is not the app's.
CALLER = "x-stand-in-caller"

# A user to impersonate: the object id in Entra, and the user id in Dataverse.
NURSE = "5f1c2f0e-7a4b-4c0e-9d55-0a1b2c3d4e11"
NURSE_USER = "5f1c2f0e-7a4b-4c0e-9d55-0a1b2c3d4e12"

# The names that forms and annotations show of them.
USER_NAMES = {USER: "# FHIR relay", NURSE_USER: "Nora Nurse"}

BYPASS = "prvBypassCustomBusinessLogic"
BYPASS_PLUGINS = "prvBypassCustomPlugins"
ACT_FOR = "prvActOnBehalfOfAnotherUser"


@dataclass(frozen=True, slots=True)
class Organization:
    """What differs between tenants. `duplicates`: the columns of each published rule, by table."""

    privileges: frozenset[str] = frozenset({BYPASS, BYPASS_PLUGINS, ACT_FOR})
    users: Mapping[str, str] = field(default_factory=lambda: {NURSE: NURSE_USER})
    duplicates: Mapping[str, tuple[tuple[str, ...], ...]] = field(
        default_factory=lambda: {"contact": (("emailaddress1",),), "account": (("name",),)}
    )


@dataclass(frozen=True, slots=True)
class OptionalParameters:
    """The optional parameters of one request, checked."""

    user: str = USER  # the user shown as the row's author
    caller: str = USER
    detect_duplicates: bool = False
    bypass: tuple[str, ...] = ()

    @property
    def on_behalf(self) -> str | None:
        """The calling user, if it impersonates another."""
        return self.caller if self.user != self.caller else None

    def as_log_entry(self) -> dict[str, object]:
        """Return the parameters that differ from the defaults, for the list of recent writes."""
        entry: dict[str, object] = {"user": self.user} if self.on_behalf else {}
        if self.caller != USER:
            entry["caller"] = self.caller
        if self.bypass:
            entry["bypass"] = list(self.bypass)
        if self.detect_duplicates:
            entry["detectDuplicates"] = True
        return entry


DEFAULT_PARAMETERS = OptionalParameters()


def parse_parameters(organization: Organization, headers: Mapping[str, str]) -> OptionalParameters:
    """Parse the headers (names in lower case). Raises Refusal for one that is not allowed."""
    caller = headers.get(CALLER, USER)
    return OptionalParameters(
        _find_user(organization, headers) or caller,
        caller,
        _parse_flag(headers, "mscrm.suppressduplicatedetection") is False,
        _parse_bypass(organization, headers),
    )


def _find_user(organization: Organization, headers: Mapping[str, str]) -> str | None:
    """Return the user to act as, if any: `CallerObjectId` is an Entra id, `MSCRMCallerID` one of
    Dataverse."""
    by_object_id, by_user = headers.get("callerobjectid"), headers.get("mscrmcallerid")
    given = by_object_id or by_user
    if not given:
        return None
    if not is_guid(given):
        raise refusals.bad_argument("The id of the user to act for is not a GUID.")
    if ACT_FOR not in organization.privileges:
        raise refusals.no_privilege(USER, ACT_FOR)
    users = organization.users
    found = users.get(normalize_guid(given)) if by_object_id else normalize_guid(given)
    if found is None or found not in users.values():
        raise refusals.no_user()
    return found


def _parse_bypass(organization: Organization, headers: Mapping[str, str]) -> tuple[str, ...]:
    """https://learn.microsoft.com/power-apps/developer/data-platform/bypass-custom-business-logic"""
    given = headers.get("mscrm.bypassbusinesslogicexecution")
    kinds = tuple(part.strip() for part in given.split(",")) if given is not None else ()
    if not set(kinds) <= {"CustomSync", "CustomAsync"}:
        raise refusals.bad_argument(
            "BypassBusinessLogicExecution takes CustomSync, CustomAsync, or both with a comma."
        )
    if kinds and BYPASS not in organization.privileges:
        raise refusals.no_privilege(USER, BYPASS)
    if _parse_flag(headers, "mscrm.bypasscustompluginexecution"):
        if BYPASS_PLUGINS not in organization.privileges:
            raise refusals.no_privilege(USER, BYPASS_PLUGINS)
        kinds = tuple(dict.fromkeys((*kinds, "CustomSync")))
    return kinds


def _parse_flag(headers: Mapping[str, str], name: str) -> bool | None:
    given = headers.get(name)
    if given is None:
        return None
    if given.lower() not in ("true", "false"):
        raise refusals.bad_argument(f"The header {name} takes true or false.")
    return given.lower() == "true"
