"""What an answer means. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from integration.check import remedies
from integration.check.report import Line, failed, ok, skipped

# How many names of what is lacking a line holds.
_NAMED = 8


def clock(name: str, date: str | None, before: datetime, after: datetime, most: float) -> Line:
    """`date` is the header, in whole seconds, of an answer that came between the two moments."""
    if date is None:
        return skipped(name, "no Date header")
    try:
        there = parsedate_to_datetime(date).astimezone(UTC)
    except ValueError:
        return skipped(name, "the Date header is none")
    # It was written somewhere between the two, and cut to the second.
    early = (before - there).total_seconds() - 1
    late = (there - after).total_seconds()
    apart = max(early, late, 0.0)
    if apart > most:
        side = "ahead of" if early > late else "behind"
        return failed(name, f"this machine is {apart:.0f} s {side} it", remedies.CLOCK)
    return ok(name, f"{apart:.0f} s apart")


def capability(name: str, answered: int, body: Any) -> Line:
    """https://hl7.org/fhir/R4/capabilitystatement.html"""
    kind = body.get("resourceType") if isinstance(body, dict) else None
    if answered != 200 or kind != "CapabilityStatement":
        said = f"answered {answered}, and no CapabilityStatement"
        return failed(name, said, remedies.FHIR_AWAY)
    version = str(body.get("fhirVersion"))[:20]
    if not version.startswith("4.0."):
        return failed(name, f"fhirVersion {version}, not R4", remedies.VERSIONS)
    return ok(name, f"fhirVersion {version}")


def read(name: str, answered: int) -> Line:
    """Of a resource that is not there."""
    if answered in (404, 410):
        return ok(name, "allowed")
    return failed(name, f"a read of nothing was answered {answered}", remedies.FHIR_AWAY)


def write(name: str, answered: int) -> Line:
    """Of an update whose If-Match cannot hold: refused, but not for lack of a right.

    https://hl7.org/fhir/R4/http.html#concurrency
    """
    if answered in (404, 412):
        return ok(name, "allowed; its condition refused it, as it should")
    if answered in (200, 201):
        return failed(name, "If-Match is ignored: an update was taken", remedies.CONDITIONS)
    return failed(name, f"an update was answered {answered}", remedies.FHIR_AWAY)


def privileges(name: str, wanted: Iterable[str], held: Iterable[Mapping[str, Any]]) -> Line:
    """`held` as RetrieveUserPrivileges tells it: names, and how far each reaches."""
    whole, narrow = set[str](), set[str]()
    for one in held:
        depth = whole if one.get("Depth") == "Global" else narrow
        depth.add(str(one.get("PrivilegeName", "")).lower())
    asked = sorted(set(wanted), key=str.lower)
    lacking = [each for each in asked if each.lower() not in whole]
    if not lacking:
        return ok(name, f"all {len(asked)}")
    near = [each for each in lacking if each.lower() in narrow]
    short = f"; {len(near)} of them not for the whole organisation" if near else ""
    return failed(name, f"lacking {listed(lacking)}{short}", remedies.PROVISION)


def keys(name: str, wanted: Iterable[Iterable[str]], there: Iterable[Mapping[str, Any]]) -> Line:
    """https://learn.microsoft.com/power-apps/developer/data-platform/define-alternate-keys-entity"""
    states = {frozenset(one["KeyAttributes"]): one.get("EntityKeyIndexStatus") for one in there}
    asked = [tuple(columns) for columns in wanted]
    lacking = [each for each in asked if frozenset(each) not in states]
    if lacking:
        told = listed(" + ".join(each) for each in lacking)
        return failed(name, f"no key of {told}", remedies.PROVISION)
    idle = [state for each in asked if (state := states[frozenset(each)]) != "Active"]
    if idle:
        again = "wait, or make it active again in the table's keys (make.powerapps.com)"
        return failed(name, f"the index is {listed(map(str, idle))}", again)
    return ok(name, f"{len(asked)} active")


def listed(names: Iterable[str]) -> str:
    """The first of them, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more
