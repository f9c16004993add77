"""What a response says about the service: one result for each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from integration.check import remedies
from integration.check.report import CheckResult, report_failure, report_ok, report_skip
from integration.provision.tables import FAILED_KEY

# How many missing names a line shows.
_MAX_NAMES = 8


def evaluate_clock(
    name: str, date: str | None, before: datetime, after: datetime, max_skew: float
) -> CheckResult:
    """Compare a service's clock with ours.

    `date` is the Date header of its response, in whole seconds. We sent the request at `before` and
    had the response at `after`; `max_skew` is in seconds.
    https://www.rfc-editor.org/rfc/rfc9110#field.date
    """
    if date is None:
        return report_skip(name, "no Date header")
    try:
        remote = parsedate_to_datetime(date).astimezone(UTC)
    except ValueError:
        return report_skip(name, "the Date header cannot be parsed")
    # The service wrote it between the two, and cut it to the second.
    early = (before - remote).total_seconds() - 1
    late = (remote - after).total_seconds()
    apart = max(early, late, 0.0)
    if apart > max_skew:
        side = "ahead of" if early > late else "behind"
        return report_failure(name, f"this machine is {apart:.0f} s {side} it", remedies.CLOCK)
    return report_ok(name, f"{apart:.0f} s apart")


def evaluate_metadata(name: str, status: int, body: Any) -> CheckResult:
    """https://hl7.org/fhir/R4/capabilitystatement.html"""
    kind = body.get("resourceType") if isinstance(body, dict) else None
    if status != 200 or kind != "CapabilityStatement":
        detail = f"answered {status}, without a CapabilityStatement"
        return report_failure(name, detail, remedies.FHIR_UNREACHABLE)
    version = str(body.get("fhirVersion"))[:20]
    if not version.startswith("4.0."):
        return report_failure(name, f"fhirVersion {version}, not R4", remedies.VERSIONS)
    return report_ok(name, f"fhirVersion {version}")


def evaluate_read(name: str, status: int) -> CheckResult:
    """Judge the read of a resource that does not exist."""
    if status in (404, 410):
        return report_ok(name, "allowed")
    return report_failure(
        name, f"answered the read of a missing resource with {status}", remedies.FHIR_UNREACHABLE
    )


def evaluate_write(name: str, status: int) -> CheckResult:
    """Judge an update whose If-Match cannot hold: the server must refuse it, but not by 403.

    https://hl7.org/fhir/R4/http.html#concurrency
    """
    if status in (404, 412):
        return report_ok(
            name, "allowed; the test update was refused by its If-Match, as it should be"
        )
    if status in (200, 201):
        return report_failure(
            name,
            "If-Match is ignored: the server accepted an update that it had to refuse",
            remedies.CONDITIONS,
        )
    return report_failure(name, f"answered an update with {status}", remedies.FHIR_UNREACHABLE)


def evaluate_privileges(
    name: str, required: Iterable[str], held: Iterable[Mapping[str, Any]]
) -> CheckResult:
    """Compare the required privileges with the response of RetrieveUserPrivileges.

    A privilege counts only with the depth Global, the whole organisation.
    """
    global_, local = set[str](), set[str]()
    for privilege in held:
        depth = global_ if privilege.get("Depth") == "Global" else local
        depth.add(str(privilege.get("PrivilegeName", "")).lower())
    names = sorted(set(required), key=str.lower)
    missing = [name for name in names if name.lower() not in global_]
    if not missing:
        return report_ok(name, f"all {len(names)}")
    narrower = [name for name in missing if name.lower() in local]
    short = (
        f"; {len(narrower)} of them granted, but not for the whole organisation" if narrower else ""
    )
    return report_failure(name, f"missing: {abbreviate(missing)}{short}", remedies.PROVISION)


def evaluate_keys(
    name: str, required: Iterable[Iterable[str]], existing: Iterable[Mapping[str, Any]]
) -> CheckResult:
    """Compare the required alternate keys, each its columns, with those of the table.

    https://learn.microsoft.com/power-apps/developer/data-platform/define-alternate-keys-entity
    """
    states = {frozenset(key["KeyAttributes"]): key.get("EntityKeyIndexStatus") for key in existing}
    keys = [tuple(columns) for columns in required]
    missing = [columns for columns in keys if frozenset(columns) not in states]
    if missing:
        names = abbreviate(" + ".join(columns) for columns in missing)
        return report_failure(name, f"missing: a key of {names}", remedies.PROVISION)
    idle = [state for columns in keys if (state := states[frozenset(columns)]) != "Active"]
    if idle:
        remedy = FAILED_KEY if "Failed" in idle else "wait until Dataverse has built it"
        return report_failure(
            name, f"not active: its index is {abbreviate(map(str, idle))}", remedy
        )
    return report_ok(name, f"{len(keys)} active")


def abbreviate(names: Iterable[str]) -> str:
    """Join the first names, and say how many more there are."""
    found = list(names)
    more = f" and {len(found) - _MAX_NAMES} more" if len(found) > _MAX_NAMES else ""
    return ", ".join(found[:_MAX_NAMES]) + more
